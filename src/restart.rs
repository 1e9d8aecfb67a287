//! Surviving a restart: everything that an agent has goes to the next one, so that no datagram and no window is lost.
//!
//! ```text
//! agent ─▶ handover ──── conversation ────▶ takeover ─▶ the next agent, which is there already
//!     └──▶ saved_state ─▶ keeper, fd_store ─▶ takeover ─▶ the next agent, once it starts
//! ```
//!
//! An agent that takes nothing over starts from what is on disk, which `app` does.

mod ahead;
mod conversation;
mod fd_store;
mod handover;
mod holding;
mod keeper;
mod received;
mod resources;
mod saved_state;
mod takeover;

pub use fd_store::Inherited;
pub use handover::{Successor, find_store, save_state, serve_successors};
pub use holding::{Holding, MovableParts};
pub use keeper::run_keeper;
pub use received::AssembledState;
#[cfg(fuzzing)]
pub use received::fuzzing;
pub use resources::{AgentResources, ListenError, raise_descriptor_limit};
pub use saved_state::StateStore;
pub use takeover::{PauseTiming, Predecessor, ReceivedAgent, TakeOver, stop_running_agent};
