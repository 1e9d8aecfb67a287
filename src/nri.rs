//! The NRI plugin: the container runtime of a Kubernetes node tells the agent of every container, and lets it change
//! the environment of one that is about to be created.
//!
//! ```text
//! Unix socket ─ mux (two connections) ─ ttrpc (calls and answers) ─ messages ─▶ plugin ─▶ the container table
//!                                                        identity: who it is ┘        └ selection: whether it is served
//! ```
//!
//! - Whatever goes wrong here, containers start: a handler that cannot serve one answers that nothing is to be changed,
//!   and the runtime goes on without a plugin whose connection is gone.
//! - After every connection the runtime says what is there. What is known is kept, what is gone is released, and what
//!   runs without a socket is shown as `mute`, or `lost` where it has an address that could not be opened again.
//! - The wire is read here and not by a library: none speaks the multiplexer, and it is small
//!   (`docs/adr/0015-nri-implementation.md`).

mod adjustment;
mod connect;
mod identity;
pub mod messages;
pub mod mux;
mod plugin;
mod reconcile;
mod selection;
pub mod ttrpc;

pub use connect::{
    Carried, Endpoint, NriError, SuspendedPlugin, Suspender, Suspensions, run, suspension_channel,
};
pub use plugin::{Plugin, PluginSettings};
pub use selection::{LabelRule, SelectionMode, SelectionRules, SelectionVerdict};

use prost::Message as _;

/// Reads bytes as a runtime's side of the socket, to the last message that can be read; answers how many calls there
/// were. What fuzzing feeds.
#[must_use]
pub fn read_all(received: &[u8]) -> usize {
    let (mut demux, mut assembler, mut calls) = (mux::Demux::default(), ttrpc::FrameAssembler::default(), 0);
    let _either_way = demux.push(received, |_, piece| assembler.push(piece));
    while let Ok(Some(frame)) = assembler.next_frame() {
        let Ok(request) = messages::TtrpcRequest::decode(frame.data) else { continue };
        calls += 1;
        let payload = request.payload.as_slice();
        let _either_way = messages::Configure::decode(payload);
        let _either_way = messages::StateChange::decode(payload);
        if let Ok(all) = messages::Synchronize::decode(payload) {
            for (pod, container) in all.pods.iter().zip(&all.containers) {
                let _either_way = SelectionRules::default().judge_container(pod, container);
                let _either_way = identity::build_reservation(pod, container);
                let _either_way = adjustment::verified_sockets(pod, container);
            }
        }
    }
    calls
}
