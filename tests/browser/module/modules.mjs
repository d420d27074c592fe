// The modules under test, in one place.
export * from "../../../gateway/console/static/gateway-client.js";
export * from "../../../gateway/console/static/delivery.js";
export { FrameDecoder, HEADER, decode, encode, toId } from "../../../gateway/console/static/wire.js";
