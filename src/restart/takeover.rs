//! The new side of a hand-over: a process that takes everything that the agent before has, or has left.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::conversation::{
    AgentDescriptors, BEFORE_PAUSE, BYE, END, GO, HAVE, Offer, PATIENCE, READY, SERVING, STOP, TAKE,
    connect_if_listening, decode_message, expect_decision, expect_word, handover_socket, send_word,
};
use super::fd_store::{FdStore, Inherited};
use super::keeper::Keeper;
use super::received::{AssembledState, ReceivedAhead};
use super::resources::SuccessorListeners;
use super::saved_state::{LetGo, SavedState, StateStore};
use crate::config::AgentConfig;
use crate::containers::Arriving;
use crate::net::clock;
use crate::net::passing::Channel;

/// How long an agent that was asked to end may take: the maximum of `agent.drain_deadline`, and a margin.
const ENDING: Duration = Duration::from_mins(61);

/// What a starting process does if an agent runs with the same state directory.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum TakeOver {
    /// It does not start.
    No,
    /// It takes over or, if it cannot, does not start.
    Strict,
    /// It takes over; if it cannot use the state of the other agent, it asks that one to end and starts from disk.
    Replace,
}

/// The agent before this one.
#[derive(Debug)]
pub enum Predecessor {
    /// It runs.
    Running(Channel),
    /// It has ended, and has left its state in a store.
    Ended(Box<dyn StateStore>, SavedState),
}

impl Predecessor {
    /// Finds the agent before this one: one that has left its state, or else, where that is wanted, one that runs.
    ///
    /// # Errors
    /// When the agent that runs cannot be reached.
    pub fn find(config: &AgentConfig, inherited: Inherited, how: TakeOver) -> io::Result<Option<Self>> {
        let saved = fetch_from(Keeper::connect(&config.state_dir))
            .or_else(|| fetch_from(Ok(FdStore::from_inherited(inherited))));
        if let Some((store, state)) = saved {
            return Ok(Some(Self::Ended(store, state)));
        }
        if how == TakeOver::No {
            return Ok(None);
        }
        let channel = connect_if_listening(&handover_socket(&config.state_dir))?;
        if channel.is_none() {
            tracing::info!("there is no agent to take over from");
        }
        Ok(channel.map(Self::Running))
    }

    /// Receives everything, and opens the listeners whose addresses have changed. `None` where this process cannot go on
    /// with it and is to start from what is on disk; then the agent has ended, and the store holds nothing.
    ///
    /// # Errors
    /// When something cannot be opened, or the agent does not hand over. Then that agent goes on, or the store still holds
    /// everything.
    pub fn receive_state(self, config: &AgentConfig, how: TakeOver) -> io::Result<Option<ReceivedAgent>> {
        match self {
            Self::Ended(store, state) => receive_from_store(store, state, config),
            Self::Running(channel) => receive_from_agent(channel, config, how),
        }
    }
}

/// The state that a store holds, and the store.
fn fetch_from<S: StateStore + 'static>(
    store: io::Result<Option<S>>,
) -> Option<(Box<dyn StateStore>, SavedState)> {
    let fetch = |mut store: S| Ok(store.fetch_state()?.map(|state| (Box::new(store) as Box<_>, state)));
    store.and_then(|store| store.map_or(Ok(None), fetch)).unwrap_or_else(|error| {
        // If it holds something, that includes the lock of the state directory, and the next error says so.
        tracing::warn!(%error, "the keeper cannot be asked");
        None
    })
}

fn receive_from_store(
    store: Box<dyn StateStore>,
    state: SavedState,
    config: &AgentConfig,
) -> io::Result<Option<ReceivedAgent>> {
    let settings = Arc::new(config.aggregation.clone());
    match state.assemble_state(config, &settings) {
        Ok(state) => {
            // A mistake in the configuration costs nothing of what is kept: it stays until an agent starts without.
            let listeners = SuccessorListeners::open_changed(config, &state.offer)?;
            Ok(Some(ReceivedAgent { state, listeners, source: StateSource::Store(store) }))
        }
        Err(why) => {
            tracing::warn!(%why, from = store.name(), "cannot use what the previous agent left; starting from disk");
            store.let_go(LetGo::Unused)?;
            Ok(None)
        }
    }
}

fn receive_from_agent(
    channel: Channel,
    config: &AgentConfig,
    how: TakeOver,
) -> io::Result<Option<ReceivedAgent>> {
    let (offer, _) = channel.receive(PATIENCE)?;
    // An offer that cannot even be decoded is from an incompatible version.
    let read = decode_message::<Offer>(&offer).map_err(|error| error.to_string());
    let usable = read.and_then(|offer| match offer.find_mismatch(&Offer::from_config(config)) {
        Some(why) => Err(why),
        None => Ok(offer),
    });
    let offer = match usable {
        Ok(offer) => offer,
        Err(why) if how == TakeOver::Replace => {
            tracing::warn!(%why, "cannot take over; asking the agent that runs to end, and starting from what is on disk");
            send_word(&channel, END)?;
            return wait_for_the_end(&channel).map(|()| None);
        }
        Err(why) => return Err(refuse_offer(&channel, io::Error::other(why))),
    };
    let listeners =
        SuccessorListeners::open_changed(config, &offer).map_err(|error| refuse_offer(&channel, error))?;
    send_word(&channel, TAKE)?;
    let settings = Arc::new(config.aggregation.clone());
    let mut ahead = ReceivedAhead::default();
    let (bytes, descriptors) = loop {
        let (bytes, descriptors) = channel.receive_all(BEFORE_PAUSE)?;
        // The message with descriptors is the last one.
        if !descriptors.is_empty() {
            break (bytes, descriptors);
        }
        ahead.add(&bytes, &settings)?;
        send_word(&channel, HAVE)?;
    };
    let state = AssembledState::from_messages(offer, ahead, (&bytes, descriptors), &settings)?;
    Ok(Some(ReceivedAgent { state, listeners, source: StateSource::Agent(channel) }))
}

/// Tells the agent that runs why this process does not take over.
fn refuse_offer(channel: &Channel, why: io::Error) -> io::Error {
    // It resumes whether or not it gets the reason.
    let _either_way = send_word(channel, &format!("the other process refuses: {why}"));
    why
}

/// Waits until the agent that was asked to end has released everything.
fn wait_for_the_end(channel: &Channel) -> io::Result<()> {
    match channel.receive(ENDING) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Makes the agent that runs with this state directory end as TERM does, and waits until it has. Returns the number of its process;
/// `None` if no agent runs.
///
/// # Errors
/// When the agent belongs to another user, is ending already, does not answer, or is of a version that does not know the request.
pub fn stop_running_agent(state_dir: &Path) -> io::Result<Option<u32>> {
    let Some(channel) = connect_if_listening(&handover_socket(state_dir))? else { return Ok(None) };
    let offered = channel.receive(PATIENCE).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            io::Error::other("it is ending, or another process takes over from it")
        }
        _ => error,
    });
    let offer: Offer = decode_message(&offered?.0).map_err(|_| {
        io::Error::other(
            "its version is too different from this one; end it with TERM, as a service manager does",
        )
    })?;
    send_word(&channel, STOP)?;
    wait_for_the_end(&channel)?;
    let pid = offer.pid();
    if is_still_offering(state_dir, pid) {
        return Err(io::Error::other(format!(
            "the agent with pid {pid} goes on: its version does not know this request; `kill -TERM {pid}` ends it"
        )));
    }
    Ok(Some(pid))
}

/// Whether this process still answers. An agent closes the connection both when it has ended and when it does not know a word. A
/// service manager can have started another process by now.
fn is_still_offering(state_dir: &Path, pid: u32) -> bool {
    let offered = || {
        let (offer, _) = connect_if_listening(&handover_socket(state_dir)).ok()??.receive(PATIENCE).ok()?;
        decode_message::<Offer>(&offer).ok()
    };
    offered().is_some_and(|offer| offer.pid() == pid)
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use socket2::{Domain, SockAddr, Socket, Type};

    use super::*;
    use crate::config::ProcessEnvironment;

    /// Accepts one connection, offers, and returns the other process's reply; empty if there is none.
    fn offer_once(listener: &Socket) -> Vec<u8> {
        let (accepted, _) = listener.accept().unwrap();
        let channel = Channel::from_accepted(OwnedFd::from(accepted)).unwrap();
        let config = AgentConfig::from_toml("state_dir = \"/s\"", &ProcessEnvironment).unwrap();
        channel.send(&crate::aggregate::encode(&Offer::from_config(&config)), &[]).unwrap();
        channel.receive(PATIENCE).map(|(word, _)| word).unwrap_or_default()
    }

    fn listen_in(directory: &Path) -> Socket {
        let listener = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        listener.bind(&SockAddr::unix(handover_socket(directory)).unwrap()).unwrap();
        listener.listen(1).unwrap();
        listener
    }

    #[test]
    fn an_agent_that_does_not_know_the_request_to_stop_is_not_called_stopped() {
        let directory = tempfile::tempdir().unwrap();
        let listener = listen_in(directory.path());
        let older = std::thread::spawn(move || [offer_once(&listener), offer_once(&listener)]);
        let refused = stop_running_agent(directory.path()).unwrap_err().to_string();
        assert!(refused.contains("goes on") && refused.contains("kill -TERM"), "{refused}");
        assert_eq!(older.join().unwrap(), [STOP.as_bytes().to_vec(), Vec::new()]);
    }

    #[test]
    fn an_agent_that_no_longer_listens_has_stopped() {
        let directory = tempfile::tempdir().unwrap();
        let listener = listen_in(directory.path());
        let ending = std::thread::spawn(move || {
            let word = offer_once(&listener);
            drop(listener);
            word
        });
        // The connection can be closed a moment before the listener, which this waits for.
        let stopped = stop_running_agent(directory.path());
        assert_eq!(ending.join().unwrap(), STOP.as_bytes());
        assert!(matches!(stopped, Ok(Some(pid)) if pid == std::process::id()), "{stopped:?}");
        assert!(matches!(stop_running_agent(directory.path()), Ok(None)), "nothing listens");
    }
}

/// Everything that the agent before had, and the listeners to continue with.
#[derive(Debug)]
pub struct ReceivedAgent {
    pub state: AssembledState,
    pub listeners: SuccessorListeners,
    pub source: StateSource,
}

impl ReceivedAgent {
    /// The address that the agent before serves HTTP on.
    ///
    /// # Errors
    /// When what came for its listener is something else.
    pub fn http_address(&self) -> io::Result<SocketAddr> {
        let AgentDescriptors([http, ..]) = &self.state.shared;
        std::net::TcpListener::from(http.try_clone()?).local_addr()
    }
}

/// Where the state comes from. It has to agree to each step of this process.
#[derive(Debug)]
pub enum StateSource {
    /// A running agent.
    Agent(Channel),
    /// A store, where an agent that has ended has left it.
    Store(Box<dyn StateStore>),
}

impl StateSource {
    /// What the log calls it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Agent(_) => "agent",
            Self::Store(store) => store.name(),
        }
    }

    /// Waits until this process may receive. Everything has to be assembled by then.
    ///
    /// # Errors
    /// When it may not: the source keeps everything.
    pub fn wait_for_release(&self) -> io::Result<()> {
        match self {
            Self::Agent(channel) => {
                send_word(channel, READY)?;
                expect_word(channel, GO, PATIENCE)
            }
            // Datagrams read from now on exist only in this process, so the saved copies must be released first.
            Self::Store(store) => store.let_go(LetGo::Used),
        }
    }

    /// Says that this process receives, and waits until the agent before leaves the node to it.
    ///
    /// # Errors
    /// When that agent goes on instead.
    pub fn confirm_serving(&self) -> io::Result<()> {
        let Self::Agent(channel) = self else { return Ok(()) };
        send_word(channel, SERVING)?;
        expect_decision(channel, BYE, PATIENCE)
    }

    /// The connection to the agent before, which ends with it. `None` where it has ended.
    #[must_use]
    pub fn into_connection(self) -> Option<Channel> {
        match self {
            Self::Agent(channel) => Some(channel),
            Self::Store(_) => None,
        }
    }
}

/// How long receiving was paused, how long each step took, and how full the receive buffers became.
#[derive(Debug)]
pub struct PauseTiming {
    /// When receiving stopped, since the machine was booted.
    stopped: Duration,
    /// When everything had arrived, and when it was restored.
    came: Duration,
    ready: Duration,
    fullest: f64,
}

impl PauseTiming {
    /// The timing of the steps so far. To be called once everything is assembled and may be received.
    #[must_use]
    pub fn of_assembled(came: Duration, arriving: &Arriving) -> Self {
        let (stopped, fullest) = (arriving.stopped_at(), arriving.max_socket_fill());
        Self { stopped, came, ready: clock::since_boot(), fullest }
    }

    /// Logs it. `receiving` is when datagrams were received again, since the machine was booted.
    pub fn log_pause(&self, receiving: Duration, from: &str, containers: usize) {
        let until = |moment: Duration| (moment.saturating_sub(self.stopped).as_micros() as f64) / 1e3;
        let (pause_ms, whole_ms) = (until(receiving), until(clock::since_boot()));
        let (came_ms, ready_ms) = (until(self.came), until(self.ready));
        let fullest_percent = (self.fullest * 100.0).round();
        tracing::info!(pause_ms, came_ms, ready_ms, whole_ms, fullest_percent, containers, from, "took over");
    }
}
