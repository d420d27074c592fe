"""What can be typed: commands, their flags, and the help that teaches them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from gateway._version import __version__
from gateway.cli.parser import Parser
from gateway.config import Flag

PROGRAM = "python -m gateway"
_SHORT = (
    ("--node-id", "node_id", "NAME", "name of this node"),
    ("--data-dir", "data_dir", "DIR", "where the node keeps its key and its messages"),
    ("--tcp-host", "tcp.host", "ADDRESS", "where to listen for TCP"),
    ("--tcp-port", "tcp.port", "PORT", "port for TCP; 0 lets the system choose"),
    ("--websocket-host", "websocket.host", "ADDRESS", "where to listen for WebSocket"),
    ("--websocket-port", "websocket.port", "PORT", "port for WebSocket"),
    ("--quic-host", "quic.host", "ADDRESS", "where to listen for QUIC and WebTransport"),
    ("--quic-port", "quic.port", "PORT", "UDP port for QUIC and WebTransport"),
    ("--console-host", "console.host", "ADDRESS", "where to listen for health and metrics"),
    ("--console-port", "console.port", "PORT", "port for health and metrics"),
    ("--log-level", "log.level", "LEVEL", "debug, info, warning or error"),
    ("--log-format", "log.format", "FORMAT", "auto, readable or json"),
)
"""Flags that are short for `--set`."""

_TOP = """\
commands:
  run      run a node (also what happens without a command)
  logic    run the reference Logic as its own process, in a cluster
  chat     talk to somebody, from a terminal
  token    make a token for a user
  config   show what is configured, and what can be
  group    create, change and list groups
  books    show what came to running processes, and what became of it

examples:
  python -m gateway                             a node with everything embedded, on this machine only
  python -m gateway chat --user 1001 --to 1002  and, in another terminal, the same with the numbers swapped
  python -m gateway COMMAND --help              more about one command

exit codes: 0 done, 1 failed, 2 wrong arguments or configuration
"""


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments, with `command` set to what is to be called with them; exits for --help, --version and typos."""
    words = list(argv)
    if not words or (words[0].startswith("-") and words[0] not in ("-h", "--help", "--version")):
        words.insert(0, "run")
    parser = Parser(
        prog=PROGRAM,
        usage=f"{PROGRAM} [COMMAND] [...]",
        description="A real-time access gateway.",
        epilog=_TOP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"trio-gateway {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", prog=PROGRAM, required=True, help=argparse.SUPPRESS)
    _run(commands)
    _logic(commands)
    _chat(commands)
    _token(commands)
    _config(commands)
    _group(commands)
    _books(commands)
    return parser.parse_all(words, commands.choices)


def _command(commands: Any, name: str, call: str, text: str, examples: str) -> Parser:
    parser: Parser = commands.add_parser(
        name,
        description=text,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=_later(call), flags=[])
    return parser


def _later(call: str) -> Callable[[argparse.Namespace], int]:
    """`module:function`, imported when it is called: a token needs no chat client."""
    module, _, function = call.partition(":")

    def command(arguments: argparse.Namespace) -> int:
        code: int = getattr(import_module(f"gateway.cli.{module}"), function)(arguments)
        return code

    return command


class _Short(argparse.Action):
    """Keeps a flag as a setting, in the order of the command line."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        if option_string == "--set":
            name, equals, text = str(values).partition("=")
            if not equals:
                parser.error(f"--set {name}: say --set NAME=VALUE, like --set tcp.port=9001")
            flag = Flag(f"--set {name.strip()}", name.strip(), text)
        else:
            flag = Flag(str(option_string), self.dest, str(values))
        namespace.flags = [*namespace.flags, flag]


def _configured(parser: Parser, short: Sequence[str] = ()) -> Any:
    """The flags of every command that reads the configuration; the group of them."""
    group = parser.add_argument_group("configuration")
    group.add_argument("--config", metavar="FILE", help="a TOML file; or say it in GATEWAY_CONFIG")
    group.add_argument(
        "--set", metavar="NAME=VALUE", action=_Short, help="any setting, like --set limits.message_rate=20"
    )
    for flag, name, metavar, text in _SHORT:
        if not short or flag in short:
            group.add_argument(flag, dest=name, metavar=metavar, action=_Short, help=text, default=argparse.SUPPRESS)
    return group


def _run(commands: Any) -> None:
    parser = _command(
        commands,
        "run",
        "run:run",
        "Run a node until it is told to stop. SIGTERM or Ctrl-C drains: no new connections, everybody is told to go\n"
        "elsewhere and given the time to, at most drain.timeout seconds; a second one stops at once.",
        "  python -m gateway\n"
        "  python -m gateway run --config gateway.toml\n"
        "  python -m gateway run --data-dir second --tcp-port 9001 --websocket-port 0 --quic-port 0 --console-port 0\n"
        "  GATEWAY_LOG__LEVEL=debug python -m gateway\n",
    )
    _configured(parser)


def _logic(commands: Any) -> None:
    parser = _command(
        commands,
        "logic",
        "logic:logic",
        "Run the reference Logic by itself, for the nodes on the same NATS. Several share the work; on one machine\n"
        "they share the store in --data-dir. SIGTERM or Ctrl-C finishes what was received; a second one stops at once.",
        "  python -m gateway logic --config cluster.toml\n"
        "  python -m gateway logic --set nats.servers=nats://127.0.0.1:4222 --set redis.host=127.0.0.1\n",
    )
    group = _configured(parser, ("--data-dir", "--console-host", "--log-level", "--log-format"))
    text = "port for health and metrics; without it the system chooses one, and the log says which"
    group.add_argument(
        "--console-port", dest="logic.console_port", metavar="PORT", action=_Short, help=text, default=argparse.SUPPRESS
    )


def _chat(commands: Any) -> None:
    parser = _command(
        commands,
        "chat",
        "chat:chat",
        "Talk to a user or a group. What was missed while away is shown first. Without --token the node's development\n"
        "key makes one, so this works on the node's own machine without anything else. A line that begins with /send\n"
        "sends a file (/send PATH, or /send PATH to USER), /fetch NUMBER fetches one into `received` of the data dir.",
        "  python -m gateway chat --user 1001 --to 1002\n"
        "  python -m gateway chat --user 1001 --group 7\n"
        "  python -m gateway chat --user 1001 --to 1002 --url ws://127.0.0.1:8080/ws\n"
        "  python -m gateway chat --user 1001 --to 1002 --url quic://chat.example.org --url wss://chat.example.org/ws\n",
    )
    parser.add_argument("--user", type=_number, required=True, metavar="ID", help="who you are")
    peer = parser.add_mutually_exclusive_group(required=True)
    peer.add_argument("--to", type=_number, default=0, metavar="ID", help="whom you talk to")
    peer.add_argument("--group", type=_number, default=0, metavar="ID", help="which group you talk to")
    parser.add_argument(
        "--url",
        metavar="URL",
        action="append",
        help="the gateway: quic://, https:// (WebTransport), wss://, ws://, tls:// or tcp://; several are several ways "
        "to it, best first, and the first that is up is taken (what is configured)",
    )
    parser.add_argument("--token", metavar="TOKEN", help="your token; better in the environment, as CHAT_TOKEN")
    parser.add_argument("--device", metavar="NAME", help="a name for this device (terminal-1001)")
    parser.add_argument("--ca", metavar="FILE", help="where there is TLS: a CA or certificate to trust, in PEM")
    parser.add_argument(
        "--certificate",
        metavar="SHA256",
        action="append",
        default=[],
        help="where there is TLS: believe the one certificate with this SHA-256, as a node in development prints it",
    )
    parser.add_argument("--insecure", action="store_true", help="where there is TLS: believe any certificate")
    parser.add_argument("--state", metavar="FILE", type=Path, help="where to remember what was shown (in the data dir)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line, for programs")
    _configured(parser, ("--data-dir", "--tcp-port"))


def _token(commands: Any) -> None:
    parser = _command(
        commands,
        "token",
        "token:token",
        "Print a token for a user, signed with the node's development key or with a configured HS256 key.",
        "  python -m gateway token --user 1001\n"
        "  python -m gateway token --user 1001 --device phone --ttl 15m\n"
        '  TOKEN="$(python -m gateway token --user 1001)"\n',
    )
    parser.add_argument("--user", type=_number, required=True, metavar="ID", help="the user id, from 1 on")
    parser.add_argument("--device", default="", metavar="NAME", help="valid on this device only")
    parser.add_argument(
        "--ttl", type=_seconds, default=86_400.0, metavar="TIME", help="how long: 90, 15m, 12h, 7d (1d)"
    )
    parser.add_argument("--kid", metavar="KEY", help="which of several configured HS256 keys")
    _configured(parser, ("--data-dir",))


def _config(commands: Any) -> None:
    parser = _command(
        commands,
        "config",
        "config:config",
        "Print the configuration in effect, with the documentation of every setting and where its value came from.\n"
        "The output is TOML that can be read back. Secrets are not shown.",
        "  python -m gateway config\n"
        "  python -m gateway config --defaults > gateway.toml\n"
        "  python -m gateway config --config gateway.toml --json\n",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--json", action="store_true", help="for programs: value, source, default and rule of each setting"
    )
    form.add_argument("--defaults", action="store_true", help="the defaults, whatever is configured")
    form.add_argument("--markdown", action="store_true", help="the page docs/configuration.md")
    _configured(parser)


def _group(commands: Any) -> None:
    parser = _command(
        commands,
        "group",
        "group:list",
        "Create, change and list groups in Logic's store; also while it runs.",
        "  python -m gateway group create 7 1001 1002 1003 --name friends\n"
        "  python -m gateway group add 7 1004\n"
        "  python -m gateway group remove 7 1001 1002\n"
        "  python -m gateway group list\n",
    )
    actions = parser.add_subparsers(metavar="create | add | remove | delete | list", prog=parser.prog, required=True)
    create = actions.add_parser("create", help="make a group")
    create.add_argument("--name", default="", help="what people call it")
    _members(create, "*")
    add = actions.add_parser("add", help="add members")
    _members(add, "+")
    remove = actions.add_parser("remove", help="remove members")
    _members(remove, "+")
    delete = actions.add_parser("delete", help="remove a group; messages stay")
    delete.add_argument("group", type=_number, metavar="GROUP", help="the group's id")
    listing = actions.add_parser("list", help="show groups and their members")
    listing.add_argument("--user", type=_number, default=0, metavar="ID", help="only groups that this user is in")
    for name, each in (("create", create), ("add", add), ("remove", remove), ("delete", delete), ("list", listing)):
        each.set_defaults(command=_later(f"group:{name}"), flags=[])
        _configured(each, ("--data-dir",))


def _books(commands: Any) -> None:
    parser = _command(
        commands,
        "books",
        "books:books",
        "Show what came to nodes and Logics that run, what became of it, and what is between them. docs/operations.md\n"
        "says what each line means. Exits with 1 when something does not add up.",
        "  python -m gateway books 127.0.0.1:8090\n"
        "  python -m gateway books 10.0.0.1:8090 10.0.0.2:8090 10.0.0.3:8091 --set console.token=...\n",
    )
    parser.add_argument("consoles", nargs="+", metavar="HOST:PORT", help="their consoles")
    _configured(parser, ("--data-dir",))


def _members(parser: Parser, how_many: str) -> None:
    parser.add_argument("group", type=_number, metavar="GROUP", help="the group's id")
    parser.add_argument("members", type=_number, nargs=how_many, metavar="USER", help="user ids")


def _number(text: str) -> int:
    if re.fullmatch(r"[0-9]{1,19}", text, re.ASCII) is None or not 0 < int(text) < 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is no id: a number from 1 to 2^63-1")
    return int(text)


_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def _seconds(text: str) -> float:
    match = re.fullmatch(r"([0-9]{1,9})([smhd]?)", text, re.ASCII)
    if match is None or int(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no length of time: say 90, 15m, 12h or 7d")
    return float(int(match[1]) * _UNITS[match[2]])
