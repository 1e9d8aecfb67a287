//! Data of a container runtime: frames of the multiplexer, messages of ttrpc, calls of NRI with lists of pods and
//! containers. Reading it in one piece and in many must give the same result.

#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use tallyport::nri::messages::{PLUGIN_SERVICE, TtrpcRequest};
use tallyport::nri::mux::{self, Connection, Demux};
use tallyport::nri::{read_all, ttrpc};

fuzz_target!(|input: &[u8]| {
    // Unchanged, as the payload of frames, and as the argument of a call.
    let calls = read_all(input);
    assert!(calls <= input.len());
    let framed = mux::split_into_frames(Connection::Plugin, input);
    assert_eq!(whole(&framed, framed.len().max(1)), input);
    assert_eq!(whole(&framed, 7), input);
    for method in ["Configure", "Synchronize", "StateChange"] {
        let request = TtrpcRequest {
            service: PLUGIN_SERVICE.to_owned(),
            method: method.to_owned(),
            payload: input.to_vec(),
            timeout_nano: 0,
        };
        let call = ttrpc::encode_frame(1, ttrpc::MessageKind::Request, &request);
        assert_eq!(read_all(&mux::split_into_frames(Connection::Plugin, &call)), 1);
        assert_eq!(TtrpcRequest::decode(&call[ttrpc::HEADER..]).as_ref(), Ok(&request));
    }
});

/// The payload of frames that arrive in pieces of this size.
fn whole(frames: &[u8], piece: usize) -> Vec<u8> {
    let (mut demux, mut payload) = (Demux::default(), Vec::new());
    for piece in frames.chunks(piece) {
        demux.push(piece, |_, bytes| payload.extend_from_slice(bytes)).expect("frames of our own");
    }
    payload
}
