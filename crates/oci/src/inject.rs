//! `create`, `run` and `restore`: reserves a socket for the container, and writes its address to the bundle.
//! `tallyport-oci precreate` does the same as a hook of podman, which reads a configuration and writes the one to be used.
//!
//! If that hook fails, podman starts no container at all and does not say why, so the input is then written unchanged.

use std::borrow::Cow;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tallyport_identity::annotation::ENABLED;
use tallyport_identity::read_switch;
use tallyport_linux::{unixgram, variables};
use tallyport_wire::{self as wire, ReservationDocument, ReservedDocument, UnixSocketDocument};

use super::agent::{self, Agent, AgentReply, Trusted};
use super::bundle::{Bundle, BundleNetwork};
use super::command_line::Call;
use super::config::{InjectMode, Poststop, Select, WrapperConfig};
use super::document::to_json;
use super::edit::{self, Gift, Hook, HookRecord, Mount, StagedHooks};
use super::errors::{Error, Reporter};
use super::identity::{ContainerIdentity, Facts};
use super::{descriptors, file, identity, missed, runtime};

/// What is known about a container that is about to start.
#[derive(Debug)]
struct StartingContainer<'a> {
    id: &'a str,
    bundle: Option<&'a str>,
    network: BundleNetwork,
    identity: ContainerIdentity,
}

/// A container's configuration on its way to the runtime.
#[derive(Debug)]
pub(super) struct Subject<'a> {
    pub(super) id: &'a str,
    /// The bundle, if known; containers with the same ID have different ones.
    pub(super) bundle: Option<String>,
    /// The runtime's state directory, if the command line names it.
    pub(super) root: Option<&'a Path>,
    pub(super) text: &'a str,
    /// The path of the configuration in error messages.
    pub(super) path: &'a Path,
}

/// A configuration with the container's address in it.
#[derive(Debug)]
pub(super) struct InjectedConfig {
    pub(super) text: String,
    /// The reservation, if it was newly made.
    reserved: Option<String>,
}

impl InjectedConfig {
    /// An unused reservation would expire; releasing it keeps nothing until then.
    fn give_back(&self, agent: &Agent) {
        give_back(agent, self.reserved.as_deref());
    }
}

fn give_back(agent: &Agent, reserved: Option<&str>) {
    if let Some(id) = reserved {
        let _either_way =
            agent.send_request("DELETE", &format!("/v1/containers/{}", agent::encode_path_segment(id)), "");
    }
}

/// Gives the container a socket, unless it is one that gets none.
pub(super) fn inject_socket(
    call: &Call,
    config: &WrapperConfig,
    report: &Reporter,
    started: Instant,
) -> Result<(), Error> {
    config.ensure_usable()?;
    let id = call.id.as_deref().ok_or(Error::CommandLine("container"))?;
    let path = call.config_path();
    let text = file::read(&path)?;
    let (bundle, root) = (Some(absolute_path(&call.bundle)), call.root.as_deref());
    let subject = Subject { id, bundle, root, text: &text, path: &path };
    let agent = Agent::new(config.admin_socket(), config.trusted_users(), started + config.time_budget());
    let Some(edited) = reserve_and_edit(&subject, config, &agent, report)? else { return Ok(()) };
    file::replace_file(&path, &edited.text).inspect_err(|_| edited.give_back(&agent))
}

/// Reserves a socket for the container, and adds its address to the configuration. `None` if it gets no socket.
pub(super) fn reserve_and_edit(
    subject: &Subject<'_>,
    config: &WrapperConfig,
    agent: &Agent,
    report: &Reporter,
) -> Result<Option<InjectedConfig>, Error> {
    let garbled =
        |error: serde_json::Error| Error::Garbled { path: subject.path.to_owned(), why: error.to_string() };
    let bundle = Bundle::read(subject.text).map_err(garbled)?;
    let Some(identity) = identify_container(subject.id, &bundle, config) else { return Ok(None) };
    let container = StartingContainer {
        id: subject.id,
        bundle: subject.bundle.as_deref(),
        network: bundle.requested_network(),
        identity,
    };
    let asked = reserve_socket(agent, &container).inspect_err(|_| {
        // With `fail_closed` the container does not start at all.
        if !config.fail_closed {
            missed::leave_note(
                agent.socket_path(),
                subject.id,
                subject.root,
                &container.request_body(subject.id),
            );
        }
    });
    let Some(reserved) = asked? else { return Ok(None) };
    let hooks = Hooks::new(config, agent, &reserved.id, report);
    let new = reserved.new.then(|| reserved.id.clone());
    reserved.check().map_err(|what| {
        give_back(agent, new.as_deref());
        Error::Offer { socket: agent.socket_path().to_owned(), what }
    })?;
    for warning in &reserved.answer.warnings {
        report.log_warning(warning);
    }
    let (gift, refused) = reserved.gift(config, agent.trusted_users());
    let edited = edit::edit_config(subject.text, &gift, &|ours| hooks.staged_hooks(ours)).map_err(garbled);
    let edited = edited.and_then(|edited| {
        let in_the_way = edited.in_the_way.as_ref().map(|theirs| format!("{theirs} is a mount of its own"));
        match refused.or(in_the_way) {
            Some(why) if gift.variables.is_empty() => return Err(Error::Mount { why }),
            Some(why) => report.log_warning(&format!("its Unix socket is not mounted: {why}")),
            None => {}
        }
        Ok(edited)
    });
    let text = edited.inspect_err(|_| give_back(agent, new.as_deref()))?.text;
    Ok(Some(InjectedConfig { text, reserved: new }))
}

/// A reservation.
#[derive(Debug)]
struct Made {
    answer: ReservedDocument,
    id: String,
    /// Whether it is new; an existing reservation is not released on failure.
    new: bool,
}

impl Made {
    /// Rejects a response with variables that do not name a socket, including those of the mount: an agent never sends
    /// such variables, so the sender is not an agent.
    fn check(&self) -> Result<(), String> {
        let of_mount = self.answer.unix_socket.iter().flat_map(|socket| &socket.env);
        self.answer
            .env
            .iter()
            .chain(of_mount)
            .try_for_each(|(name, value)| variables::check_variable(name, value))
    }

    /// What the container gets, and why its Unix socket is not mounted, if it has one that cannot be. The two variables
    /// of its address do not depend on the mount.
    fn gift(self, config: &WrapperConfig, trusted: Trusted) -> (Gift, Option<String>) {
        let mount = self.answer.unix_socket.map(|socket| mount(socket, config, trusted)).transpose();
        let (mount, refused) = match mount {
            Ok(mount) => (mount, None),
            Err(why) => (None, Some(why)),
        };
        (Gift { variables: self.answer.env, mount }, refused)
    }
}

/// The mount of the Unix socket's directory.
///
/// # Errors
/// With the reason, if the mount would not be at `unix_path`, the directory belongs to an untrusted user, or it is not
/// visible from here: the runtime could not mount it and would not start the container. Such a directory belongs to an
/// agent in a container of its own, or to another user.
fn mount(socket: UnixSocketDocument, config: &WrapperConfig, trusted: Trusted) -> Result<Mount, String> {
    let UnixSocketDocument { mount: wire::MountDocument { source, destination }, env, .. } = socket;
    let wanted = config.unix_path.parent().and_then(Path::to_str).unwrap_or_default();
    if !unixgram::is_same(&destination, wanted) {
        return Err(format!(
            "the agent wants it at {destination:?} and unix_path in oci.toml at {wanted:?}; set unix_path to the agent's unix.path"
        ));
    }
    match Path::new(&source).metadata() {
        _ if !Path::new(&source).is_absolute() => Err(format!("{source} is not an absolute path")),
        Ok(found) if !trusted.owns_file(&found) => {
            Err(format!("{source} belongs to user {}, who is not trusted", found.uid()))
        }
        Ok(found) if found.is_dir() => Ok(Mount { source, destination, variables: env }),
        _ => Err(format!("{source} is not a directory that can be reached")),
    }
}

/// The identity of the container; `None` if it gets no socket.
fn identify_container(id: &str, bundle: &Bundle, config: &WrapperConfig) -> Option<ContainerIdentity> {
    let identities = config.identity_rules();
    let mut annotations = bundle.annotations.clone().unwrap_or_default();
    if identities.is_sandbox(bundle, &annotations) {
        return None;
    }
    annotations.extend(identity::read_docker_annotations(&config.docker_root, id));
    let facts = Facts { id, hostname: bundle.hostname.as_deref().unwrap_or_default(), annotations };
    let identity = identities.identify_container(&facts).unwrap_or_default();
    (config.select == Select::All || has_opted_in(&identity)).then_some(identity)
}

pub(super) fn has_opted_in(identity: &ContainerIdentity) -> bool {
    let said = identity.labels.get(ENABLED).map(String::as_str);
    said.and_then(read_switch) == Some(true)
}

/// Requests a socket. `None` if the agent reports that the container has opted out.
fn reserve_socket(agent: &Agent, container: &StartingContainer<'_>) -> Result<Option<Made>, Error> {
    let mut id = container.id.to_owned();
    let mut answer = agent.send_request("POST", "/v1/containers", &container.request_body(&id))?;
    if let (409, Some(bundle)) = (answer.status, container.bundle) {
        // IDs are unique per caller of the runtime only; bundles are unique among all callers.
        id = format!("{id}.{:08x}", hash(bundle));
        answer = agent.send_request("POST", "/v1/containers", &container.request_body(&id))?;
    }
    match answer {
        AgentReply { status: status @ (200 | 201), body } => {
            let answer = serde_json::from_str(&body).map_err(|error| Error::Answer {
                socket: agent.socket_path().to_owned(),
                why: error.to_string(),
            })?;
            Ok(Some(Made { answer, id, new: status == 201 }))
        }
        AgentReply { status: 204, .. } => Ok(None),
        answer => Err(answer.refusal_error()),
    }
}

/// FNV-1a: short and stable, not meant to be secure.
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

impl StartingContainer<'_> {
    fn request_body(&self, id: &str) -> String {
        let identity = &self.identity;
        let request: ReservationDocument<'_> = ReservationDocument {
            task_id: identity.task_id.as_deref().map(Cow::Borrowed),
            labels: Some(Cow::Borrowed(&identity.labels)),
            network: Some(match &self.network {
                BundleNetwork::Host => wire::Network::Host,
                BundleNetwork::Path(path) => wire::Network::Netns { path: path.into() },
                BundleNetwork::New => wire::Network::New,
            }),
            bundle: self.bundle.map(Cow::Borrowed),
            sandbox_id: identity.sandbox_id.as_deref().map(Cow::Borrowed),
            pod_uid: identity.pod_uid.as_deref().map(Cow::Borrowed),
            image: identity.image.as_deref().map(Cow::Borrowed),
            ..ReservationDocument::new(id)
        };
        to_json(&request)
    }
}

/// The hooks that a container gets.
#[derive(Debug)]
struct Hooks {
    path: Option<String>,
    arguments: Vec<String>,
    /// The rest of the wrapper's budget, for the hook that the container's start waits for; the `poststop` hook has a
    /// budget of its own.
    left: Duration,
    budget: Duration,
    timeout: u64,
    poststop: bool,
}

impl Hooks {
    fn new(config: &WrapperConfig, agent: &Agent, id: &str, report: &Reporter) -> Self {
        let budget = config.time_budget();
        let mut arguments: Vec<String> =
            ["--container", id, "--admin-socket", &agent.socket_path().to_string_lossy()]
                .map(str::to_owned)
                .into();
        if config.fail_closed {
            arguments.push("--fail-closed".to_owned());
        }
        if config.agent_user != agent::AGENT_USER {
            arguments.extend(["--agent-user".to_owned(), config.agent_user.clone()]);
        }
        // crun discards the stderr of hooks.
        if let Some(log) = report.for_hooks().and_then(Path::to_str) {
            arguments.extend(["--log".to_owned(), log.to_owned()]);
        }
        // An agent in another pid namespace gets a pidfd, also if this program cannot determine its namespace.
        let shares = agent.shares_processes();
        let descriptors = !shares && descriptors::socket_of(agent.socket_path()).exists();
        if descriptors {
            arguments.push("--descriptors".to_owned());
        }
        let poststop = match config.poststop {
            Poststop::Always => true,
            Poststop::Never => false,
            Poststop::Auto => !shares && !descriptors,
        };
        let (path, left, timeout) = (runtime::own_path(), agent.left_of_budget(), budget.as_secs() + 2);
        Self { path, arguments, left, budget, timeout, poststop }
    }

    fn staged_hooks(&self, ours: &HookRecord) -> StagedHooks {
        let Some(path) = &self.path else { return Vec::new() };
        let mut arguments = self.arguments.clone();
        if !ours.aliases.is_empty() {
            arguments.extend(["--aliases".to_owned(), ours.aliases.join(",")]);
        }
        if let Some(mount) = &ours.mount {
            arguments.extend(["--mount".to_owned(), mount.clone()]);
        }
        let hook = |verb: &str, budget: Duration| {
            let budget = ["--budget-ms".to_owned(), budget.as_millis().to_string()];
            let arguments: Vec<String> = arguments.iter().cloned().chain(budget).collect();
            Hook::new(path, verb, &arguments, self.timeout)
        };
        let mut hooks = vec![("createRuntime", hook("create-runtime", self.left))];
        if self.poststop {
            hooks.push(("poststop", hook("poststop", self.budget)));
        }
        hooks
    }
}

fn absolute_path(path: &Path) -> String {
    path.canonicalize().unwrap_or_else(|_| path.to_owned()).to_string_lossy().into_owned()
}

/// The name of the configuration in messages.
const CONFIG_NAME: &str = "standard input";

/// Reads a configuration, and writes it with the container's address.
pub(super) fn run_precreate(started: Instant) -> ExitCode {
    let report = Reporter::with_log(None);
    let mut text = Vec::new();
    // Read as bytes, because input that is not UTF-8 must be written unchanged, too.
    if let Err(error) = io::stdin().lock().read_to_end(&mut text) {
        report.log_error(&format!("cannot read the configuration: {error}"));
        return ExitCode::FAILURE;
    }
    let config = super::load_config(&report);
    let edited = match config.mode {
        InjectMode::Inject => inject_into_config(&text, &config, &report, started),
        InjectMode::PassThrough => Ok(None),
    };
    let output = match edited {
        Ok(edited) => edited.map_or(text, String::into_bytes),
        Err(error) if config.fail_closed => {
            report
                .log_error(&format!("the container does not start without a socket (fail_closed): {error}"));
            return ExitCode::FAILURE;
        }
        Err(error) => {
            report.log_warning(&format!("the container starts without a socket: {error}"));
            text
        }
    };
    match io::stdout().lock().write_all(&output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn inject_into_config(
    text: &[u8],
    config: &WrapperConfig,
    report: &Reporter,
    started: Instant,
) -> Result<Option<String>, Error> {
    config.ensure_usable()?;
    let path = Path::new(CONFIG_NAME);
    let garbled = |why: String| Error::Garbled { path: path.to_owned(), why };
    let text = std::str::from_utf8(text).map_err(|error| garbled(error.to_string()))?;
    let bundle = Bundle::read(text).map_err(|error| garbled(error.to_string()))?;
    let id = bundle
        .id()
        .ok_or_else(|| garbled("linux.cgroupsPath does not say which container it is".to_owned()))?;
    let subject = Subject { id, bundle: None, root: None, text, path };
    let agent = Agent::new(config.admin_socket(), config.trusted_users(), started + config.time_budget());
    Ok(reserve_and_edit(&subject, config, &agent, report)?.map(|edited| edited.text))
}
