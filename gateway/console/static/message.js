// Generated from schema/message.fbs by `make browser-generate`; do not edit.

// im/protocol/ack-status.ts
var AckStatus = /* @__PURE__ */ ((AckStatus2) => {
  AckStatus2[AckStatus2["Accepted"] = 0] = "Accepted";
  AckStatus2[AckStatus2["Stored"] = 1] = "Stored";
  AckStatus2[AckStatus2["Delivered"] = 2] = "Delivered";
  AckStatus2[AckStatus2["Read"] = 3] = "Read";
  AckStatus2[AckStatus2["Rejected"] = 4] = "Rejected";
  return AckStatus2;
})(AckStatus || {});

// im/protocol/auth-request.ts
import * as flatbuffers from "./flatbuffers.js";
var AuthRequest = class _AuthRequest {
  bb = null;
  bb_pos = 0;
  __init(i, bb) {
    this.bb_pos = i;
    this.bb = bb;
    return this;
  }
  static getRootAsAuthRequest(bb, obj) {
    return (obj || new _AuthRequest()).__init(bb.readInt32(bb.position()) + bb.position(), bb);
  }
  static getSizePrefixedRootAsAuthRequest(bb, obj) {
    bb.setPosition(bb.position() + flatbuffers.SIZE_PREFIX_LENGTH);
    return (obj || new _AuthRequest()).__init(bb.readInt32(bb.position()) + bb.position(), bb);
  }
  token(optionalEncoding) {
    const offset = this.bb.__offset(this.bb_pos, 4);
    return offset ? this.bb.__string(this.bb_pos + offset, optionalEncoding) : null;
  }
  deviceId(optionalEncoding) {
    const offset = this.bb.__offset(this.bb_pos, 6);
    return offset ? this.bb.__string(this.bb_pos + offset, optionalEncoding) : null;
  }
  platform(optionalEncoding) {
    const offset = this.bb.__offset(this.bb_pos, 8);
    return offset ? this.bb.__string(this.bb_pos + offset, optionalEncoding) : null;
  }
  protocolVersion() {
    const offset = this.bb.__offset(this.bb_pos, 10);
    return offset ? this.bb.readUint16(this.bb_pos + offset) : 1;
  }
  client(optionalEncoding) {
    const offset = this.bb.__offset(this.bb_pos, 12);
    return offset ? this.bb.__string(this.bb_pos + offset, optionalEncoding) : null;
  }
  resumeTicket(optionalEncoding) {
    const offset = this.bb.__offset(this.bb_pos, 14);
    return offset ? this.bb.__string(this.bb_pos + offset, optionalEncoding) : null;
  }
  syncCursor() {
    const offset = this.bb.__offset(this.bb_pos, 16);
    return offset ? this.bb.readUint64(this.bb_pos + offset) : BigInt("0");
  }
  static startAuthRequest(builder) {
    builder.startObject(7);
  }
  static addToken(builder, tokenOffset) {
    builder.addFieldOffset(0, tokenOffset, 0);
  }
  static addDeviceId(builder, deviceIdOffset) {
    builder.addFieldOffset(1, deviceIdOffset, 0);
  }
  static addPlatform(builder, platformOffset) {
    builder.addFieldOffset(2, platformOffset, 0);
  }
  static addProtocolVersion(builder, protocolVersion) {
    builder.addFieldInt16(3, protocolVersion, 1);
  }
  static addClient(builder, clientOffset) {
    builder.addFieldOffset(4, clientOffset, 0);
  }
  static addResumeTicket(builder, resumeTicketOffset) {
    builder.addFieldOffset(5, resumeTicketOffset, 0);
  }
  static addSyncCursor(builder, syncCursor) {
    builder.addFieldInt64(6, syncCursor, BigInt("0"));
  }
  static endAuthRequest(builder) {
    const offset = builder.endObject();
    return offset;
  }
  static createAuthRequest(builder, tokenOffset, deviceIdOffset, platformOffset, protocolVersion, clientOffset, resumeTicketOffset, syncCursor) {
    _AuthRequest.startAuthRequest(builder);
    _AuthRequest.addToken(builder, tokenOffset);
    _AuthRequest.addDeviceId(builder, deviceIdOffset);
    _AuthRequest.addPlatform(builder, platformOffset);
    _AuthRequest.addProtocolVersion(builder, protocolVersion);
    _AuthRequest.addClient(builder, clientOffset);
    _AuthRequest.addResumeTicket(builder, resumeTicketOffset);
    _AuthRequest.addSyncCursor(builder, syncCursor);
    return _AuthRequest.endAuthRequest(builder);
  }
};

// im/protocol/auth-response.ts
import * as flatbuffers2 from "./flatbuffers.js";
var AuthResponse = class _AuthResponse {
  bb = null;
  bb_pos = 0;
  __init(i, bb) {
    this.bb_pos = i;
    this.bb = bb;
    return this;
  }
  static getRootAsAuthResponse(bb, obj) {
    return (obj || new _AuthResponse()).__init(bb.readInt32(bb.position()) + bb.position(), bb);
  }
  static getSizePrefixedRootAsAuthResponse(bb, obj) {
    bb.setPosition(bb.position() + flatbuffers2.SIZE_PREFIX_LENGTH);
    return (obj || new _AuthResponse()).__init(bb.readInt32(bb.position()) + bb.position(), bb);
  }
  code() {
    const offset = this.bb.__offset(this.bb_pos, 4);
    return offset ? this.bb.readInt32(this.bb_pos + offset) : 0;
  }
  userId() {
    const offset = this.bb.__offset(this.bb_pos, 6);
    return offset ? this.bb.readInt64(this.bb_pos + offset) : BigInt("0");
  }
  message(optionalEncoding) {
    const offset = this.bb.__offset(this.bb_pos, 8);
    return offset ? this.bb.__string(this.bb_pos + offset, optionalEncoding) : null;
  }
  sessionId(optionalEncoding) {
    const offset = this.bb.__offset(this.bb_pos, 10);
    return offset ? this.bb.__string(this.bb_pos + offset, optionalEncoding) : null;
  }
  nodeId(optionalEncoding) {
    const offset = this.bb.__offset(this.bb_pos, 12);
    return offset ? this.bb.__string(this.bb_pos + offset, optionalEncoding) : null;
  }
  heartbeatIntervalMs() {
    const offset = this.bb.__offset(this.bb_pos, 14);
    return offset ? this.bb.readUint32(this.bb_pos + offset) : 0;
  }
  heartbeatTimeoutMs() {
    const offset = this.bb.__offset(this.bb_pos, 16);
    return offset ? this.bb.readUint32(this.bb_pos + offset) : 0;
  }
  maxFrame() {
    const offset = this.bb.__offset(this.bb_pos, 18);
    return offset ? this.bb.readUint32(this.bb_pos + offset) : 0;
  }
  serverTime() {
    const offset = this.bb.__offset(this.bb_pos, 20);
    return offset ? this.bb.readUint64(this.bb_pos + offset) : BigInt("0");
  }
  resumeTicket(optionalEncoding) {
    const offset = this.bb.__offset(this.bb_pos, 22);
    return offset ? this.bb.__string(this.bb_pos + offset, optionalEncoding) : null;
  }
  static startAuthResponse(builder) {
    builder.startObject(10);
  }
  static addCode(builder, code) {
    builder.addFieldInt32(0, code, 0);
  }
  static addUserId(builder, userId) {
    builder.addFieldInt64(1, userId, BigInt("0"));
  }
  static addMessage(builder, messageOffset) {
    builder.addFieldOffset(2, messageOffset, 0);
  }
  static addSessionId(builder, sessionIdOffset) {
    builder.addFieldOffset(3, sessionIdOffset, 0);
  }
  static addNodeId(builder, nodeIdOffset) {
    builder.addFieldOffset(4, nodeIdOffset, 0);
  }
  static addHeartbeatIntervalMs(builder, heartbeatIntervalMs) {
    builder.addFieldInt32(5, heartbeatIntervalMs, 0);
  }
  static addHeartbeatTimeoutMs(builder, heartbeatTimeoutMs) {
    builder.addFieldInt32(6, heartbeatTimeoutMs, 0);
  }
  static addMaxFrame(builder, maxFrame) {
    builder.addFieldInt32(7, maxFrame, 0);
  }
  static addServerTime(builder, serverTime) {
    builder.addFieldInt64(8, serverTime, BigInt("0"));
  }
  static addResumeTicket(builder, resumeTicketOffset) {
    builder.addFieldOffset(9, resumeTicketOffset, 0);
  }
  static endAuthResponse(builder) {
    const offset = builder.endObject();
    return offset;
  }
  static createAuthResponse(builder, code, userId, messageOffset, sessionIdOffset, nodeIdOffset, heartbeatIntervalMs, heartbeatTimeoutMs, maxFrame, serverTime, resumeTicketOffset) {
    _AuthResponse.startAuthResponse(builder);
    _AuthResponse.addCode(builder, code);
    _AuthResponse.addUserId(builder, userId);
    _AuthResponse.addMessage(builder, messageOffset);
    _AuthResponse.addSessionId(builder, sessionIdOffset);
    _AuthResponse.addNodeId(builder, nodeIdOffset);
    _AuthResponse.addHeartbeatIntervalMs(builder, heartbeatIntervalMs);
    _AuthResponse.addHeartbeatTimeoutMs(builder, heartbeatTimeoutMs);
    _AuthResponse.addMaxFrame(builder, maxFrame);
    _AuthResponse.addServerTime(builder, serverTime);
    _AuthResponse.addResumeTicket(builder, resumeTicketOffset);
    return _AuthResponse.endAuthResponse(builder);
  }
};

// im/protocol/chat-message.ts
import * as flatbuffers3 from "./flatbuffers.js";
var ChatMessage = class _ChatMessage {
  bb = null;
  bb_pos = 0;
  __init(i, bb) {
    this.bb_pos = i;
    this.bb = bb;
    return this;
  }
  static getRootAsChatMessage(bb, obj) {
    return (obj || new _ChatMessage()).__init(bb.readInt32(bb.position()) + bb.position(), bb);
  }
  static getSizePrefixedRootAsChatMessage(bb, obj) {
    bb.setPosition(bb.position() + flatbuffers3.SIZE_PREFIX_LENGTH);
    return (obj || new _ChatMessage()).__init(bb.readInt32(bb.position()) + bb.position(), bb);
  }
  msgId(optionalEncoding) {
    const offset = this.bb.__offset(this.bb_pos, 4);
    return offset ? this.bb.__string(this.bb_pos + offset, optionalEncoding) : null;
  }
  fromUser() {
    const offset = this.bb.__offset(this.bb_pos, 6);
    return offset ? this.bb.readInt64(this.bb_pos + offset) : BigInt("0");
  }
  toUser() {
    const offset = this.bb.__offset(this.bb_pos, 8);
    return offset ? this.bb.readInt64(this.bb_pos + offset) : BigInt("0");
  }
  content(optionalEncoding) {
    const offset = this.bb.__offset(this.bb_pos, 10);
    return offset ? this.bb.__string(this.bb_pos + offset, optionalEncoding) : null;
  }
  contentType() {
    const offset = this.bb.__offset(this.bb_pos, 12);
    return offset ? this.bb.readInt32(this.bb_pos + offset) : 0;
  }
  timestamp() {
    const offset = this.bb.__offset(this.bb_pos, 14);
    return offset ? this.bb.readUint64(this.bb_pos + offset) : BigInt("0");
  }
  groupId() {
    const offset = this.bb.__offset(this.bb_pos, 16);
    return offset ? this.bb.readInt64(this.bb_pos + offset) : BigInt("0");
  }
  serverSeq() {
    const offset = this.bb.__offset(this.bb_pos, 18);
    return offset ? this.bb.readUint64(this.bb_pos + offset) : BigInt("0");
  }
  static startChatMessage(builder) {
    builder.startObject(8);
  }
  static addMsgId(builder, msgIdOffset) {
    builder.addFieldOffset(0, msgIdOffset, 0);
  }
  static addFromUser(builder, fromUser) {
    builder.addFieldInt64(1, fromUser, BigInt("0"));
  }
  static addToUser(builder, toUser) {
    builder.addFieldInt64(2, toUser, BigInt("0"));
  }
  static addContent(builder, contentOffset) {
    builder.addFieldOffset(3, contentOffset, 0);
  }
  static addContentType(builder, contentType) {
    builder.addFieldInt32(4, contentType, 0);
  }
  static addTimestamp(builder, timestamp) {
    builder.addFieldInt64(5, timestamp, BigInt("0"));
  }
  static addGroupId(builder, groupId) {
    builder.addFieldInt64(6, groupId, BigInt("0"));
  }
  static addServerSeq(builder, serverSeq) {
    builder.addFieldInt64(7, serverSeq, BigInt("0"));
  }
  static endChatMessage(builder) {
    const offset = builder.endObject();
    return offset;
  }
  static createChatMessage(builder, msgIdOffset, fromUser, toUser, contentOffset, contentType, timestamp, groupId, serverSeq) {
    _ChatMessage.startChatMessage(builder);
    _ChatMessage.addMsgId(builder, msgIdOffset);
    _ChatMessage.addFromUser(builder, fromUser);
    _ChatMessage.addToUser(builder, toUser);
    _ChatMessage.addContent(builder, contentOffset);
    _ChatMessage.addContentType(builder, contentType);
    _ChatMessage.addTimestamp(builder, timestamp);
    _ChatMessage.addGroupId(builder, groupId);
    _ChatMessage.addServerSeq(builder, serverSeq);
    return _ChatMessage.endChatMessage(builder);
  }
};

// im/protocol/error.ts
import * as flatbuffers4 from "./flatbuffers.js";
var Error = class _Error {
  bb = null;
  bb_pos = 0;
  __init(i, bb) {
    this.bb_pos = i;
    this.bb = bb;
    return this;
  }
  static getRootAsError(bb, obj) {
    return (obj || new _Error()).__init(bb.readInt32(bb.position()) + bb.position(), bb);
  }
  static getSizePrefixedRootAsError(bb, obj) {
    bb.setPosition(bb.position() + flatbuffers4.SIZE_PREFIX_LENGTH);
    return (obj || new _Error()).__init(bb.readInt32(bb.position()) + bb.position(), bb);
  }
  code() {
    const offset = this.bb.__offset(this.bb_pos, 4);
    return offset ? this.bb.readInt32(this.bb_pos + offset) : 0;
  }
  message(optionalEncoding) {
    const offset = this.bb.__offset(this.bb_pos, 6);
    return offset ? this.bb.__string(this.bb_pos + offset, optionalEncoding) : null;
  }
  retryAfterMs() {
    const offset = this.bb.__offset(this.bb_pos, 8);
    return offset ? this.bb.readUint32(this.bb_pos + offset) : 0;
  }
  static startError(builder) {
    builder.startObject(3);
  }
  static addCode(builder, code) {
    builder.addFieldInt32(0, code, 0);
  }
  static addMessage(builder, messageOffset) {
    builder.addFieldOffset(1, messageOffset, 0);
  }
  static addRetryAfterMs(builder, retryAfterMs) {
    builder.addFieldInt32(2, retryAfterMs, 0);
  }
  static endError(builder) {
    const offset = builder.endObject();
    return offset;
  }
  static createError(builder, code, messageOffset, retryAfterMs) {
    _Error.startError(builder);
    _Error.addCode(builder, code);
    _Error.addMessage(builder, messageOffset);
    _Error.addRetryAfterMs(builder, retryAfterMs);
    return _Error.endError(builder);
  }
};

// im/protocol/event.ts
import * as flatbuffers5 from "./flatbuffers.js";
var Event = class _Event {
  bb = null;
  bb_pos = 0;
  __init(i, bb) {
    this.bb_pos = i;
    this.bb = bb;
    return this;
  }
  static getRootAsEvent(bb, obj) {
    return (obj || new _Event()).__init(bb.readInt32(bb.position()) + bb.position(), bb);
  }
  static getSizePrefixedRootAsEvent(bb, obj) {
    bb.setPosition(bb.position() + flatbuffers5.SIZE_PREFIX_LENGTH);
    return (obj || new _Event()).__init(bb.readInt32(bb.position()) + bb.position(), bb);
  }
  kind(optionalEncoding) {
    const offset = this.bb.__offset(this.bb_pos, 4);
    return offset ? this.bb.__string(this.bb_pos + offset, optionalEncoding) : null;
  }
  data(index) {
    const offset = this.bb.__offset(this.bb_pos, 6);
    return offset ? this.bb.readUint8(this.bb.__vector(this.bb_pos + offset) + index) : 0;
  }
  dataLength() {
    const offset = this.bb.__offset(this.bb_pos, 6);
    return offset ? this.bb.__vector_len(this.bb_pos + offset) : 0;
  }
  dataArray() {
    const offset = this.bb.__offset(this.bb_pos, 6);
    return offset ? new Uint8Array(this.bb.bytes().buffer, this.bb.bytes().byteOffset + this.bb.__vector(this.bb_pos + offset), this.bb.__vector_len(this.bb_pos + offset)) : null;
  }
  static startEvent(builder) {
    builder.startObject(2);
  }
  static addKind(builder, kindOffset) {
    builder.addFieldOffset(0, kindOffset, 0);
  }
  static addData(builder, dataOffset) {
    builder.addFieldOffset(1, dataOffset, 0);
  }
  static createDataVector(builder, data) {
    builder.startVector(1, data.length, 1);
    for (let i = data.length - 1; i >= 0; i--) {
      builder.addInt8(data[i]);
    }
    return builder.endVector();
  }
  static startDataVector(builder, numElems) {
    builder.startVector(1, numElems, 1);
  }
  static endEvent(builder) {
    const offset = builder.endObject();
    return offset;
  }
  static createEvent(builder, kindOffset, dataOffset) {
    _Event.startEvent(builder);
    _Event.addKind(builder, kindOffset);
    _Event.addData(builder, dataOffset);
    return _Event.endEvent(builder);
  }
};

// im/protocol/file-ack.ts
import * as flatbuffers6 from "./flatbuffers.js";
var FileAck = class _FileAck {
  bb = null;
  bb_pos = 0;
  __init(i, bb) {
    this.bb_pos = i;
    this.bb = bb;
    return this;
  }
  static getRootAsFileAck(bb, obj) {
    return (obj || new _FileAck()).__init(bb.readInt32(bb.position()) + bb.position(), bb);
  }
  static getSizePrefixedRootAsFileAck(bb, obj) {
    bb.setPosition(bb.position() + flatbuffers6.SIZE_PREFIX_LENGTH);
    return (obj || new _FileAck()).__init(bb.readInt32(bb.position()) + bb.position(), bb);
  }
  fileId(optionalEncoding) {
    const offset = this.bb.__offset(this.bb_pos, 4);
    return offset ? this.bb.__string(this.bb_pos + offset, optionalEncoding) : null;
  }
  code() {
    const offset = this.bb.__offset(this.bb_pos, 6);
    return offset ? this.bb.readInt32(this.bb_pos + offset) : 0;
  }
  message(optionalEncoding) {
    const offset = this.bb.__offset(this.bb_pos, 8);
    return offset ? this.bb.__string(this.bb_pos + offset, optionalEncoding) : null;
  }
  received() {
    const offset = this.bb.__offset(this.bb_pos, 10);
    return offset ? this.bb.readUint64(this.bb_pos + offset) : BigInt("0");
  }
  static startFileAck(builder) {
    builder.startObject(4);
  }
  static addFileId(builder, fileIdOffset) {
    builder.addFieldOffset(0, fileIdOffset, 0);
  }
  static addCode(builder, code) {
    builder.addFieldInt32(1, code, 0);
  }
  static addMessage(builder, messageOffset) {
    builder.addFieldOffset(2, messageOffset, 0);
  }
  static addReceived(builder, received) {
    builder.addFieldInt64(3, received, BigInt("0"));
  }
  static endFileAck(builder) {
    const offset = builder.endObject();
    return offset;
  }
  static createFileAck(builder, fileIdOffset, code, messageOffset, received) {
    _FileAck.startFileAck(builder);
    _FileAck.addFileId(builder, fileIdOffset);
    _FileAck.addCode(builder, code);
    _FileAck.addMessage(builder, messageOffset);
    _FileAck.addReceived(builder, received);
    return _FileAck.endFileAck(builder);
  }
};

// im/protocol/file-chunk.ts
import * as flatbuffers7 from "./flatbuffers.js";
var FileChunk = class _FileChunk {
  bb = null;
  bb_pos = 0;
  __init(i, bb) {
    this.bb_pos = i;
    this.bb = bb;
    return this;
  }
  static getRootAsFileChunk(bb, obj) {
    return (obj || new _FileChunk()).__init(bb.readInt32(bb.position()) + bb.position(), bb);
  }
  static getSizePrefixedRootAsFileChunk(bb, obj) {
    bb.setPosition(bb.position() + flatbuffers7.SIZE_PREFIX_LENGTH);
    return (obj || new _FileChunk()).__init(bb.readInt32(bb.position()) + bb.position(), bb);
  }
  fileId(optionalEncoding) {
    const offset = this.bb.__offset(this.bb_pos, 4);
    return offset ? this.bb.__string(this.bb_pos + offset, optionalEncoding) : null;
  }
  offset() {
    const offset = this.bb.__offset(this.bb_pos, 6);
    return offset ? this.bb.readUint64(this.bb_pos + offset) : BigInt("0");
  }
  data(index) {
    const offset = this.bb.__offset(this.bb_pos, 8);
    return offset ? this.bb.readUint8(this.bb.__vector(this.bb_pos + offset) + index) : 0;
  }
  dataLength() {
    const offset = this.bb.__offset(this.bb_pos, 8);
    return offset ? this.bb.__vector_len(this.bb_pos + offset) : 0;
  }
  dataArray() {
    const offset = this.bb.__offset(this.bb_pos, 8);
    return offset ? new Uint8Array(this.bb.bytes().buffer, this.bb.bytes().byteOffset + this.bb.__vector(this.bb_pos + offset), this.bb.__vector_len(this.bb_pos + offset)) : null;
  }
  last() {
    const offset = this.bb.__offset(this.bb_pos, 10);
    return offset ? !!this.bb.readInt8(this.bb_pos + offset) : false;
  }
  static startFileChunk(builder) {
    builder.startObject(4);
  }
  static addFileId(builder, fileIdOffset) {
    builder.addFieldOffset(0, fileIdOffset, 0);
  }
  static addOffset(builder, offset) {
    builder.addFieldInt64(1, offset, BigInt("0"));
  }
  static addData(builder, dataOffset) {
    builder.addFieldOffset(2, dataOffset, 0);
  }
  static createDataVector(builder, data) {
    builder.startVector(1, data.length, 1);
    for (let i = data.length - 1; i >= 0; i--) {
      builder.addInt8(data[i]);
    }
    return builder.endVector();
  }
  static startDataVector(builder, numElems) {
    builder.startVector(1, numElems, 1);
  }
  static addLast(builder, last) {
    builder.addFieldInt8(3, +last, 0);
  }
  static endFileChunk(builder) {
    const offset = builder.endObject();
    return offset;
  }
  static createFileChunk(builder, fileIdOffset, offset, dataOffset, last) {
    _FileChunk.startFileChunk(builder);
    _FileChunk.addFileId(builder, fileIdOffset);
    _FileChunk.addOffset(builder, offset);
    _FileChunk.addData(builder, dataOffset);
    _FileChunk.addLast(builder, last);
    return _FileChunk.endFileChunk(builder);
  }
};

// im/protocol/file-offer.ts
import * as flatbuffers8 from "./flatbuffers.js";
var FileOffer = class _FileOffer {
  bb = null;
  bb_pos = 0;
  __init(i, bb) {
    this.bb_pos = i;
    this.bb = bb;
    return this;
  }
  static getRootAsFileOffer(bb, obj) {
    return (obj || new _FileOffer()).__init(bb.readInt32(bb.position()) + bb.position(), bb);
  }
  static getSizePrefixedRootAsFileOffer(bb, obj) {
    bb.setPosition(bb.position() + flatbuffers8.SIZE_PREFIX_LENGTH);
    return (obj || new _FileOffer()).__init(bb.readInt32(bb.position()) + bb.position(), bb);
  }
  fileId(optionalEncoding) {
    const offset = this.bb.__offset(this.bb_pos, 4);
    return offset ? this.bb.__string(this.bb_pos + offset, optionalEncoding) : null;
  }
  toUser() {
    const offset = this.bb.__offset(this.bb_pos, 6);
    return offset ? this.bb.readInt64(this.bb_pos + offset) : BigInt("0");
  }
  groupId() {
    const offset = this.bb.__offset(this.bb_pos, 8);
    return offset ? this.bb.readInt64(this.bb_pos + offset) : BigInt("0");
  }
  name(optionalEncoding) {
    const offset = this.bb.__offset(this.bb_pos, 10);
    return offset ? this.bb.__string(this.bb_pos + offset, optionalEncoding) : null;
  }
  size() {
    const offset = this.bb.__offset(this.bb_pos, 12);
    return offset ? this.bb.readUint64(this.bb_pos + offset) : BigInt("0");
  }
  sha256(index) {
    const offset = this.bb.__offset(this.bb_pos, 14);
    return offset ? this.bb.readUint8(this.bb.__vector(this.bb_pos + offset) + index) : 0;
  }
  sha256Length() {
    const offset = this.bb.__offset(this.bb_pos, 14);
    return offset ? this.bb.__vector_len(this.bb_pos + offset) : 0;
  }
  sha256Array() {
    const offset = this.bb.__offset(this.bb_pos, 14);
    return offset ? new Uint8Array(this.bb.bytes().buffer, this.bb.bytes().byteOffset + this.bb.__vector(this.bb_pos + offset), this.bb.__vector_len(this.bb_pos + offset)) : null;
  }
  contentType(optionalEncoding) {
    const offset = this.bb.__offset(this.bb_pos, 16);
    return offset ? this.bb.__string(this.bb_pos + offset, optionalEncoding) : null;
  }
  static startFileOffer(builder) {
    builder.startObject(7);
  }
  static addFileId(builder, fileIdOffset) {
    builder.addFieldOffset(0, fileIdOffset, 0);
  }
  static addToUser(builder, toUser) {
    builder.addFieldInt64(1, toUser, BigInt("0"));
  }
  static addGroupId(builder, groupId) {
    builder.addFieldInt64(2, groupId, BigInt("0"));
  }
  static addName(builder, nameOffset) {
    builder.addFieldOffset(3, nameOffset, 0);
  }
  static addSize(builder, size) {
    builder.addFieldInt64(4, size, BigInt("0"));
  }
  static addSha256(builder, sha256Offset) {
    builder.addFieldOffset(5, sha256Offset, 0);
  }
  static createSha256Vector(builder, data) {
    builder.startVector(1, data.length, 1);
    for (let i = data.length - 1; i >= 0; i--) {
      builder.addInt8(data[i]);
    }
    return builder.endVector();
  }
  static startSha256Vector(builder, numElems) {
    builder.startVector(1, numElems, 1);
  }
  static addContentType(builder, contentTypeOffset) {
    builder.addFieldOffset(6, contentTypeOffset, 0);
  }
  static endFileOffer(builder) {
    const offset = builder.endObject();
    return offset;
  }
  static createFileOffer(builder, fileIdOffset, toUser, groupId, nameOffset, size, sha256Offset, contentTypeOffset) {
    _FileOffer.startFileOffer(builder);
    _FileOffer.addFileId(builder, fileIdOffset);
    _FileOffer.addToUser(builder, toUser);
    _FileOffer.addGroupId(builder, groupId);
    _FileOffer.addName(builder, nameOffset);
    _FileOffer.addSize(builder, size);
    _FileOffer.addSha256(builder, sha256Offset);
    _FileOffer.addContentType(builder, contentTypeOffset);
    return _FileOffer.endFileOffer(builder);
  }
};

// im/protocol/go-away.ts
import * as flatbuffers9 from "./flatbuffers.js";
var GoAway = class _GoAway {
  bb = null;
  bb_pos = 0;
  __init(i, bb) {
    this.bb_pos = i;
    this.bb = bb;
    return this;
  }
  static getRootAsGoAway(bb, obj) {
    return (obj || new _GoAway()).__init(bb.readInt32(bb.position()) + bb.position(), bb);
  }
  static getSizePrefixedRootAsGoAway(bb, obj) {
    bb.setPosition(bb.position() + flatbuffers9.SIZE_PREFIX_LENGTH);
    return (obj || new _GoAway()).__init(bb.readInt32(bb.position()) + bb.position(), bb);
  }
  code() {
    const offset = this.bb.__offset(this.bb_pos, 4);
    return offset ? this.bb.readInt32(this.bb_pos + offset) : 0;
  }
  message(optionalEncoding) {
    const offset = this.bb.__offset(this.bb_pos, 6);
    return offset ? this.bb.__string(this.bb_pos + offset, optionalEncoding) : null;
  }
  reconnectAfterMs() {
    const offset = this.bb.__offset(this.bb_pos, 8);
    return offset ? this.bb.readUint32(this.bb_pos + offset) : 0;
  }
  jitterMs() {
    const offset = this.bb.__offset(this.bb_pos, 10);
    return offset ? this.bb.readUint32(this.bb_pos + offset) : 0;
  }
  endpoints(index, optionalEncoding) {
    const offset = this.bb.__offset(this.bb_pos, 12);
    return offset ? this.bb.__string(this.bb.__vector(this.bb_pos + offset) + index * 4, optionalEncoding) : null;
  }
  endpointsLength() {
    const offset = this.bb.__offset(this.bb_pos, 12);
    return offset ? this.bb.__vector_len(this.bb_pos + offset) : 0;
  }
  static startGoAway(builder) {
    builder.startObject(5);
  }
  static addCode(builder, code) {
    builder.addFieldInt32(0, code, 0);
  }
  static addMessage(builder, messageOffset) {
    builder.addFieldOffset(1, messageOffset, 0);
  }
  static addReconnectAfterMs(builder, reconnectAfterMs) {
    builder.addFieldInt32(2, reconnectAfterMs, 0);
  }
  static addJitterMs(builder, jitterMs) {
    builder.addFieldInt32(3, jitterMs, 0);
  }
  static addEndpoints(builder, endpointsOffset) {
    builder.addFieldOffset(4, endpointsOffset, 0);
  }
  static createEndpointsVector(builder, data) {
    builder.startVector(4, data.length, 4);
    for (let i = data.length - 1; i >= 0; i--) {
      builder.addOffset(data[i]);
    }
    return builder.endVector();
  }
  static startEndpointsVector(builder, numElems) {
    builder.startVector(4, numElems, 4);
  }
  static endGoAway(builder) {
    const offset = builder.endObject();
    return offset;
  }
  static createGoAway(builder, code, messageOffset, reconnectAfterMs, jitterMs, endpointsOffset) {
    _GoAway.startGoAway(builder);
    _GoAway.addCode(builder, code);
    _GoAway.addMessage(builder, messageOffset);
    _GoAway.addReconnectAfterMs(builder, reconnectAfterMs);
    _GoAway.addJitterMs(builder, jitterMs);
    _GoAway.addEndpoints(builder, endpointsOffset);
    return _GoAway.endGoAway(builder);
  }
};

// im/protocol/kick.ts
import * as flatbuffers10 from "./flatbuffers.js";
var Kick = class _Kick {
  bb = null;
  bb_pos = 0;
  __init(i, bb) {
    this.bb_pos = i;
    this.bb = bb;
    return this;
  }
  static getRootAsKick(bb, obj) {
    return (obj || new _Kick()).__init(bb.readInt32(bb.position()) + bb.position(), bb);
  }
  static getSizePrefixedRootAsKick(bb, obj) {
    bb.setPosition(bb.position() + flatbuffers10.SIZE_PREFIX_LENGTH);
    return (obj || new _Kick()).__init(bb.readInt32(bb.position()) + bb.position(), bb);
  }
  code() {
    const offset = this.bb.__offset(this.bb_pos, 4);
    return offset ? this.bb.readInt32(this.bb_pos + offset) : 0;
  }
  message(optionalEncoding) {
    const offset = this.bb.__offset(this.bb_pos, 6);
    return offset ? this.bb.__string(this.bb_pos + offset, optionalEncoding) : null;
  }
  deviceId(optionalEncoding) {
    const offset = this.bb.__offset(this.bb_pos, 8);
    return offset ? this.bb.__string(this.bb_pos + offset, optionalEncoding) : null;
  }
  platform(optionalEncoding) {
    const offset = this.bb.__offset(this.bb_pos, 10);
    return offset ? this.bb.__string(this.bb_pos + offset, optionalEncoding) : null;
  }
  static startKick(builder) {
    builder.startObject(4);
  }
  static addCode(builder, code) {
    builder.addFieldInt32(0, code, 0);
  }
  static addMessage(builder, messageOffset) {
    builder.addFieldOffset(1, messageOffset, 0);
  }
  static addDeviceId(builder, deviceIdOffset) {
    builder.addFieldOffset(2, deviceIdOffset, 0);
  }
  static addPlatform(builder, platformOffset) {
    builder.addFieldOffset(3, platformOffset, 0);
  }
  static endKick(builder) {
    const offset = builder.endObject();
    return offset;
  }
  static createKick(builder, code, messageOffset, deviceIdOffset, platformOffset) {
    _Kick.startKick(builder);
    _Kick.addCode(builder, code);
    _Kick.addMessage(builder, messageOffset);
    _Kick.addDeviceId(builder, deviceIdOffset);
    _Kick.addPlatform(builder, platformOffset);
    return _Kick.endKick(builder);
  }
};

// im/protocol/message-ack.ts
import * as flatbuffers11 from "./flatbuffers.js";
var MessageAck = class _MessageAck {
  bb = null;
  bb_pos = 0;
  __init(i, bb) {
    this.bb_pos = i;
    this.bb = bb;
    return this;
  }
  static getRootAsMessageAck(bb, obj) {
    return (obj || new _MessageAck()).__init(bb.readInt32(bb.position()) + bb.position(), bb);
  }
  static getSizePrefixedRootAsMessageAck(bb, obj) {
    bb.setPosition(bb.position() + flatbuffers11.SIZE_PREFIX_LENGTH);
    return (obj || new _MessageAck()).__init(bb.readInt32(bb.position()) + bb.position(), bb);
  }
  msgId(optionalEncoding) {
    const offset = this.bb.__offset(this.bb_pos, 4);
    return offset ? this.bb.__string(this.bb_pos + offset, optionalEncoding) : null;
  }
  status() {
    const offset = this.bb.__offset(this.bb_pos, 6);
    return offset ? this.bb.readInt8(this.bb_pos + offset) : 0 /* Accepted */;
  }
  code() {
    const offset = this.bb.__offset(this.bb_pos, 8);
    return offset ? this.bb.readInt32(this.bb_pos + offset) : 0;
  }
  serverSeq() {
    const offset = this.bb.__offset(this.bb_pos, 10);
    return offset ? this.bb.readUint64(this.bb_pos + offset) : BigInt("0");
  }
  timestamp() {
    const offset = this.bb.__offset(this.bb_pos, 12);
    return offset ? this.bb.readUint64(this.bb_pos + offset) : BigInt("0");
  }
  static startMessageAck(builder) {
    builder.startObject(5);
  }
  static addMsgId(builder, msgIdOffset) {
    builder.addFieldOffset(0, msgIdOffset, 0);
  }
  static addStatus(builder, status) {
    builder.addFieldInt8(1, status, 0 /* Accepted */);
  }
  static addCode(builder, code) {
    builder.addFieldInt32(2, code, 0);
  }
  static addServerSeq(builder, serverSeq) {
    builder.addFieldInt64(3, serverSeq, BigInt("0"));
  }
  static addTimestamp(builder, timestamp) {
    builder.addFieldInt64(4, timestamp, BigInt("0"));
  }
  static endMessageAck(builder) {
    const offset = builder.endObject();
    return offset;
  }
  static createMessageAck(builder, msgIdOffset, status, code, serverSeq, timestamp) {
    _MessageAck.startMessageAck(builder);
    _MessageAck.addMsgId(builder, msgIdOffset);
    _MessageAck.addStatus(builder, status);
    _MessageAck.addCode(builder, code);
    _MessageAck.addServerSeq(builder, serverSeq);
    _MessageAck.addTimestamp(builder, timestamp);
    return _MessageAck.endMessageAck(builder);
  }
};

// im/protocol/msg-type.ts
var MsgType = /* @__PURE__ */ ((MsgType2) => {
  MsgType2[MsgType2["Heartbeat"] = 0] = "Heartbeat";
  MsgType2[MsgType2["Auth"] = 1] = "Auth";
  MsgType2[MsgType2["AuthAck"] = 2] = "AuthAck";
  MsgType2[MsgType2["Error"] = 3] = "Error";
  MsgType2[MsgType2["Kick"] = 4] = "Kick";
  MsgType2[MsgType2["GoAway"] = 5] = "GoAway";
  MsgType2[MsgType2["Message"] = 10] = "Message";
  MsgType2[MsgType2["MessageAck"] = 11] = "MessageAck";
  MsgType2[MsgType2["Signal"] = 12] = "Signal";
  MsgType2[MsgType2["Sync"] = 20] = "Sync";
  MsgType2[MsgType2["SyncAck"] = 21] = "SyncAck";
  MsgType2[MsgType2["Event"] = 30] = "Event";
  MsgType2[MsgType2["FileOffer"] = 40] = "FileOffer";
  MsgType2[MsgType2["FileAck"] = 41] = "FileAck";
  MsgType2[MsgType2["FileChunk"] = 42] = "FileChunk";
  return MsgType2;
})(MsgType || {});

// im/protocol/packet.ts
import * as flatbuffers12 from "./flatbuffers.js";
var Packet = class _Packet {
  bb = null;
  bb_pos = 0;
  __init(i, bb) {
    this.bb_pos = i;
    this.bb = bb;
    return this;
  }
  static getRootAsPacket(bb, obj) {
    return (obj || new _Packet()).__init(bb.readInt32(bb.position()) + bb.position(), bb);
  }
  static getSizePrefixedRootAsPacket(bb, obj) {
    bb.setPosition(bb.position() + flatbuffers12.SIZE_PREFIX_LENGTH);
    return (obj || new _Packet()).__init(bb.readInt32(bb.position()) + bb.position(), bb);
  }
  seq() {
    const offset = this.bb.__offset(this.bb_pos, 4);
    return offset ? this.bb.readUint64(this.bb_pos + offset) : BigInt("0");
  }
  msgType() {
    const offset = this.bb.__offset(this.bb_pos, 6);
    return offset ? this.bb.readInt16(this.bb_pos + offset) : 0 /* Heartbeat */;
  }
  timestamp() {
    const offset = this.bb.__offset(this.bb_pos, 8);
    return offset ? this.bb.readUint64(this.bb_pos + offset) : BigInt("0");
  }
  payload(index) {
    const offset = this.bb.__offset(this.bb_pos, 10);
    return offset ? this.bb.readUint8(this.bb.__vector(this.bb_pos + offset) + index) : 0;
  }
  payloadLength() {
    const offset = this.bb.__offset(this.bb_pos, 10);
    return offset ? this.bb.__vector_len(this.bb_pos + offset) : 0;
  }
  payloadArray() {
    const offset = this.bb.__offset(this.bb_pos, 10);
    return offset ? new Uint8Array(this.bb.bytes().buffer, this.bb.bytes().byteOffset + this.bb.__vector(this.bb_pos + offset), this.bb.__vector_len(this.bb_pos + offset)) : null;
  }
  static startPacket(builder) {
    builder.startObject(4);
  }
  static addSeq(builder, seq) {
    builder.addFieldInt64(0, seq, BigInt("0"));
  }
  static addMsgType(builder, msgType) {
    builder.addFieldInt16(1, msgType, 0 /* Heartbeat */);
  }
  static addTimestamp(builder, timestamp) {
    builder.addFieldInt64(2, timestamp, BigInt("0"));
  }
  static addPayload(builder, payloadOffset) {
    builder.addFieldOffset(3, payloadOffset, 0);
  }
  static createPayloadVector(builder, data) {
    builder.startVector(1, data.length, 1);
    for (let i = data.length - 1; i >= 0; i--) {
      builder.addInt8(data[i]);
    }
    return builder.endVector();
  }
  static startPayloadVector(builder, numElems) {
    builder.startVector(1, numElems, 1);
  }
  static endPacket(builder) {
    const offset = builder.endObject();
    return offset;
  }
  static finishPacketBuffer(builder, offset) {
    builder.finish(offset);
  }
  static finishSizePrefixedPacketBuffer(builder, offset) {
    builder.finish(offset, void 0, true);
  }
  static createPacket(builder, seq, msgType, timestamp, payloadOffset) {
    _Packet.startPacket(builder);
    _Packet.addSeq(builder, seq);
    _Packet.addMsgType(builder, msgType);
    _Packet.addTimestamp(builder, timestamp);
    _Packet.addPayload(builder, payloadOffset);
    return _Packet.endPacket(builder);
  }
};

// im/protocol/signal.ts
import * as flatbuffers13 from "./flatbuffers.js";
var Signal = class _Signal {
  bb = null;
  bb_pos = 0;
  __init(i, bb) {
    this.bb_pos = i;
    this.bb = bb;
    return this;
  }
  static getRootAsSignal(bb, obj) {
    return (obj || new _Signal()).__init(bb.readInt32(bb.position()) + bb.position(), bb);
  }
  static getSizePrefixedRootAsSignal(bb, obj) {
    bb.setPosition(bb.position() + flatbuffers13.SIZE_PREFIX_LENGTH);
    return (obj || new _Signal()).__init(bb.readInt32(bb.position()) + bb.position(), bb);
  }
  toUser() {
    const offset = this.bb.__offset(this.bb_pos, 4);
    return offset ? this.bb.readInt64(this.bb_pos + offset) : BigInt("0");
  }
  fromUser() {
    const offset = this.bb.__offset(this.bb_pos, 6);
    return offset ? this.bb.readInt64(this.bb_pos + offset) : BigInt("0");
  }
  groupId() {
    const offset = this.bb.__offset(this.bb_pos, 8);
    return offset ? this.bb.readInt64(this.bb_pos + offset) : BigInt("0");
  }
  kind(optionalEncoding) {
    const offset = this.bb.__offset(this.bb_pos, 10);
    return offset ? this.bb.__string(this.bb_pos + offset, optionalEncoding) : null;
  }
  data(index) {
    const offset = this.bb.__offset(this.bb_pos, 12);
    return offset ? this.bb.readUint8(this.bb.__vector(this.bb_pos + offset) + index) : 0;
  }
  dataLength() {
    const offset = this.bb.__offset(this.bb_pos, 12);
    return offset ? this.bb.__vector_len(this.bb_pos + offset) : 0;
  }
  dataArray() {
    const offset = this.bb.__offset(this.bb_pos, 12);
    return offset ? new Uint8Array(this.bb.bytes().buffer, this.bb.bytes().byteOffset + this.bb.__vector(this.bb_pos + offset), this.bb.__vector_len(this.bb_pos + offset)) : null;
  }
  static startSignal(builder) {
    builder.startObject(5);
  }
  static addToUser(builder, toUser) {
    builder.addFieldInt64(0, toUser, BigInt("0"));
  }
  static addFromUser(builder, fromUser) {
    builder.addFieldInt64(1, fromUser, BigInt("0"));
  }
  static addGroupId(builder, groupId) {
    builder.addFieldInt64(2, groupId, BigInt("0"));
  }
  static addKind(builder, kindOffset) {
    builder.addFieldOffset(3, kindOffset, 0);
  }
  static addData(builder, dataOffset) {
    builder.addFieldOffset(4, dataOffset, 0);
  }
  static createDataVector(builder, data) {
    builder.startVector(1, data.length, 1);
    for (let i = data.length - 1; i >= 0; i--) {
      builder.addInt8(data[i]);
    }
    return builder.endVector();
  }
  static startDataVector(builder, numElems) {
    builder.startVector(1, numElems, 1);
  }
  static endSignal(builder) {
    const offset = builder.endObject();
    return offset;
  }
  static createSignal(builder, toUser, fromUser, groupId, kindOffset, dataOffset) {
    _Signal.startSignal(builder);
    _Signal.addToUser(builder, toUser);
    _Signal.addFromUser(builder, fromUser);
    _Signal.addGroupId(builder, groupId);
    _Signal.addKind(builder, kindOffset);
    _Signal.addData(builder, dataOffset);
    return _Signal.endSignal(builder);
  }
};

// im/protocol/sync-request.ts
import * as flatbuffers14 from "./flatbuffers.js";
var SyncRequest = class _SyncRequest {
  bb = null;
  bb_pos = 0;
  __init(i, bb) {
    this.bb_pos = i;
    this.bb = bb;
    return this;
  }
  static getRootAsSyncRequest(bb, obj) {
    return (obj || new _SyncRequest()).__init(bb.readInt32(bb.position()) + bb.position(), bb);
  }
  static getSizePrefixedRootAsSyncRequest(bb, obj) {
    bb.setPosition(bb.position() + flatbuffers14.SIZE_PREFIX_LENGTH);
    return (obj || new _SyncRequest()).__init(bb.readInt32(bb.position()) + bb.position(), bb);
  }
  cursor() {
    const offset = this.bb.__offset(this.bb_pos, 4);
    return offset ? this.bb.readUint64(this.bb_pos + offset) : BigInt("0");
  }
  limit() {
    const offset = this.bb.__offset(this.bb_pos, 6);
    return offset ? this.bb.readUint16(this.bb_pos + offset) : 100;
  }
  static startSyncRequest(builder) {
    builder.startObject(2);
  }
  static addCursor(builder, cursor) {
    builder.addFieldInt64(0, cursor, BigInt("0"));
  }
  static addLimit(builder, limit) {
    builder.addFieldInt16(1, limit, 100);
  }
  static endSyncRequest(builder) {
    const offset = builder.endObject();
    return offset;
  }
  static createSyncRequest(builder, cursor, limit) {
    _SyncRequest.startSyncRequest(builder);
    _SyncRequest.addCursor(builder, cursor);
    _SyncRequest.addLimit(builder, limit);
    return _SyncRequest.endSyncRequest(builder);
  }
};

// im/protocol/sync-response.ts
import * as flatbuffers15 from "./flatbuffers.js";
var SyncResponse = class _SyncResponse {
  bb = null;
  bb_pos = 0;
  __init(i, bb) {
    this.bb_pos = i;
    this.bb = bb;
    return this;
  }
  static getRootAsSyncResponse(bb, obj) {
    return (obj || new _SyncResponse()).__init(bb.readInt32(bb.position()) + bb.position(), bb);
  }
  static getSizePrefixedRootAsSyncResponse(bb, obj) {
    bb.setPosition(bb.position() + flatbuffers15.SIZE_PREFIX_LENGTH);
    return (obj || new _SyncResponse()).__init(bb.readInt32(bb.position()) + bb.position(), bb);
  }
  code() {
    const offset = this.bb.__offset(this.bb_pos, 4);
    return offset ? this.bb.readInt32(this.bb_pos + offset) : 0;
  }
  messages(index, obj) {
    const offset = this.bb.__offset(this.bb_pos, 6);
    return offset ? (obj || new ChatMessage()).__init(this.bb.__indirect(this.bb.__vector(this.bb_pos + offset) + index * 4), this.bb) : null;
  }
  messagesLength() {
    const offset = this.bb.__offset(this.bb_pos, 6);
    return offset ? this.bb.__vector_len(this.bb_pos + offset) : 0;
  }
  nextCursor() {
    const offset = this.bb.__offset(this.bb_pos, 8);
    return offset ? this.bb.readUint64(this.bb_pos + offset) : BigInt("0");
  }
  hasMore() {
    const offset = this.bb.__offset(this.bb_pos, 10);
    return offset ? !!this.bb.readInt8(this.bb_pos + offset) : false;
  }
  static startSyncResponse(builder) {
    builder.startObject(4);
  }
  static addCode(builder, code) {
    builder.addFieldInt32(0, code, 0);
  }
  static addMessages(builder, messagesOffset) {
    builder.addFieldOffset(1, messagesOffset, 0);
  }
  static createMessagesVector(builder, data) {
    builder.startVector(4, data.length, 4);
    for (let i = data.length - 1; i >= 0; i--) {
      builder.addOffset(data[i]);
    }
    return builder.endVector();
  }
  static startMessagesVector(builder, numElems) {
    builder.startVector(4, numElems, 4);
  }
  static addNextCursor(builder, nextCursor) {
    builder.addFieldInt64(2, nextCursor, BigInt("0"));
  }
  static addHasMore(builder, hasMore) {
    builder.addFieldInt8(3, +hasMore, 0);
  }
  static endSyncResponse(builder) {
    const offset = builder.endObject();
    return offset;
  }
  static createSyncResponse(builder, code, messagesOffset, nextCursor, hasMore) {
    _SyncResponse.startSyncResponse(builder);
    _SyncResponse.addCode(builder, code);
    _SyncResponse.addMessages(builder, messagesOffset);
    _SyncResponse.addNextCursor(builder, nextCursor);
    _SyncResponse.addHasMore(builder, hasMore);
    return _SyncResponse.endSyncResponse(builder);
  }
};
export {
  AckStatus,
  AuthRequest,
  AuthResponse,
  ChatMessage,
  Error,
  Event,
  FileAck,
  FileChunk,
  FileOffer,
  GoAway,
  Kick,
  MessageAck,
  MsgType,
  Packet,
  Signal,
  SyncRequest,
  SyncResponse
};
