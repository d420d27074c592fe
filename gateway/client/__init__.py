"""A Trio client for the gateway. Stands on `gateway.protocol` alone.

    async with connect("tcp://127.0.0.1:9000", token=token, device_id="laptop") as client:
        await client.send("hello", to_user=1002)
        async for delivery in client:
            print(delivery.from_user, delivery.content)

One task per client and four per connection: `upkeep` dials and decides (`reconnection`), `connection` lives from
Auth to the end, `frames` says what each frame does, `timeline` and `outgoing` keep what must outlive a connection.
"""

from gateway.client.client import Client as Client
from gateway.client.client import connect as connect
from gateway.client.errors import ClientClosed as ClientClosed
from gateway.client.errors import ClientError as ClientError
from gateway.client.errors import CodedError as CodedError
from gateway.client.errors import FileFailed as FileFailed
from gateway.client.errors import Refused as Refused
from gateway.client.errors import Rejected as Rejected
from gateway.client.errors import RequestFailed as RequestFailed
from gateway.client.errors import SendTimeout as SendTimeout
from gateway.client.errors import Unreachable as Unreachable
from gateway.client.errors import UnsupportedTransport as UnsupportedTransport
from gateway.client.files import file_of as file_of
from gateway.client.messages import Complaint as Complaint
from gateway.client.messages import Delivery as Delivery
from gateway.client.messages import Event as Event
from gateway.client.messages import Notice as Notice
from gateway.client.messages import OfferedFile as OfferedFile
from gateway.client.messages import Page as Page
from gateway.client.messages import Receipt as Receipt
from gateway.client.messages import SentFile as SentFile
from gateway.client.messages import Signal as Signal
from gateway.client.messages import State as State
from gateway.client.messages import StateChange as StateChange
from gateway.client.messages import Statistics as Statistics
from gateway.client.messages import Synced as Synced
from gateway.client.notices import Notices as Notices
from gateway.client.settings import ClientSettings as ClientSettings
from gateway.client.tickets import MemoryTickets as MemoryTickets
from gateway.client.tickets import Ticket as Ticket
from gateway.client.tickets import TicketStore as TicketStore
from gateway.client.token import TokenSource as TokenSource
from gateway.client.transport import Dial as Dial
from gateway.client.transport import StreamTransport as StreamTransport
from gateway.client.transport import Transport as Transport
from gateway.client.transport import TransportFailed as TransportFailed
from gateway.client.trust import Trust as Trust
