// The reference verifier behind two C functions; compiled and called by differential.py.
#include "internal_generated.h"
#include "message_generated.h"

namespace protocol = im::protocol;
namespace internal = im::internal;

template <typename Table>
static bool payload(flatbuffers::Verifier &verifier, const protocol::Packet *packet) {
  return verifier.VerifyNestedFlatBuffer<Table>(packet->payload(), nullptr);
}

template <typename Table>
static bool whole(const uint8_t *data, size_t size) {
  flatbuffers::Verifier verifier(data, size);
  return verifier.VerifyBuffer<Table>(nullptr);
}

// 1: the Packet and, by its header's type, its payload are verified; 0: they are not; -1: no such type.
extern "C" int oracle_frame(const uint8_t *body, size_t size, int msg_type) {
  flatbuffers::Verifier verifier(body, size);
  if (!verifier.VerifyBuffer<protocol::Packet>(nullptr)) return 0;
  const auto *packet = flatbuffers::GetRoot<protocol::Packet>(body);
  switch (msg_type) {
    case 0: return 1;
    case 1: return payload<protocol::AuthRequest>(verifier, packet);
    case 2: return payload<protocol::AuthResponse>(verifier, packet);
    case 3: return payload<protocol::Error>(verifier, packet);
    case 4: return payload<protocol::Kick>(verifier, packet);
    case 5: return payload<protocol::GoAway>(verifier, packet);
    case 10: return payload<protocol::ChatMessage>(verifier, packet);
    case 11: return payload<protocol::MessageAck>(verifier, packet);
    case 12: return payload<protocol::Signal>(verifier, packet);
    case 20: return payload<protocol::SyncRequest>(verifier, packet);
    case 21: return payload<protocol::SyncResponse>(verifier, packet);
    case 30: return payload<protocol::Event>(verifier, packet);
    case 40: return payload<protocol::FileOffer>(verifier, packet);
    case 41: return payload<protocol::FileAck>(verifier, packet);
    case 42: return payload<protocol::FileChunk>(verifier, packet);
    default: return -1;
  }
}

// `name` is the first letter that tells the envelopes apart: U(pstream), D(ownstream), E(vent), N(ot delivered).
extern "C" int oracle_envelope(const uint8_t *data, size_t size, char name) {
  switch (name) {
    case 'U': return whole<internal::Upstream>(data, size);
    case 'D': return whole<internal::Downstream>(data, size);
    case 'E': return whole<internal::UserEvent>(data, size);
    case 'N': return whole<internal::Undelivered>(data, size);
    default: return -1;
  }
}

extern "C" const char *oracle_version() {
  return FLATBUFFERS_STRING(FLATBUFFERS_VERSION_MAJOR) "." FLATBUFFERS_STRING(FLATBUFFERS_VERSION_MINOR) "."
      FLATBUFFERS_STRING(FLATBUFFERS_VERSION_REVISION);
}
