//! The NRI plugin: the container runtime of a Kubernetes node notifies the agent of every container, and lets it change
//! the environment of containers that are about to be created.
//!
//! ```text
//! Unix socket ─ mux (two connections) ─ ttrpc (calls and answers) ─ messages ─▶ plugin ─▶ the container table
//!                                                        identity: who it is ┘        └ selection: whether it is served
//! ```
//!
//! - Failures here never prevent a container from starting: a handler that cannot serve one replies without changes,
//!   and the runtime continues without a plugin whose connection is gone.
//! - After connecting, the runtime lists its containers. Known ones are kept, missing ones are released, and those that
//!   run without a socket are shown as `mute`, or as `lost` if they have an address that could not be opened again.
//! - The wire protocol is implemented here: no library supports the multiplexer, and it is small
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

/// Reads bytes as received from a runtime, up to the last valid message; returns the number of calls. For fuzzing.
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
