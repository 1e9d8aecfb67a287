//! `create`, `run` and `restore`: a socket for the container, its address into the bundle.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tallyport_identity::annotation::ENABLED;
use tallyport_identity::read_switch;
use tallyport_linux::{unixgram, variables};

use super::agent::{self, Agent, Answer};
use super::bundle::{Bundle, Network};
use super::command_line::Call;
use super::config::{Config, Poststop, Select};
use super::document::json;
use super::edit::{self, Gift, Hook, Mount, Remembered, Staged};
use super::errors::Error;
use super::identity::{Facts, Identity};
use super::report::Report;
use super::trust::{self, Trusted};
use super::{descriptors, docker, file, missed, runtime};

/// What the agent answers.
#[derive(Debug, Deserialize)]
struct Reserved {
    env: BTreeMap<String, String>,
    #[serde(default)]
    warnings: Vec<String>,
    #[serde(default)]
    unix_socket: Option<UnixSocket>,
    /// Whether it was not there before; what was is not ours to take away.
    #[serde(skip)]
    new: bool,
}

/// The container's Unix socket, and how it gets there.
#[derive(Debug, Deserialize)]
struct UnixSocket {
    mount: Mounted,
    env: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct Mounted {
    source: PathBuf,
    destination: String,
}

/// What is known of a container that is about to start.
#[derive(Debug)]
struct Container<'a> {
    id: &'a str,
    bundle: Option<&'a str>,
    network: Network,
    identity: Identity,
}

/// A container's configuration on its way to the runtime.
#[derive(Debug)]
pub(super) struct Subject<'a> {
    pub(super) id: &'a str,
    /// The bundle, where it is known; two containers with the same id have different ones.
    pub(super) bundle: Option<String>,
    /// Where the runtime keeps its state, where it was told.
    pub(super) root: Option<&'a Path>,
    pub(super) text: &'a str,
    /// What the configuration is called where it makes no sense.
    pub(super) path: &'a Path,
}

/// A configuration with the container's address in it.
#[derive(Debug)]
pub(super) struct Edited {
    pub(super) text: String,
    /// The reservation, where it was made for this.
    reserved: Option<String>,
}

impl Edited {
    /// A reservation that nobody comes for would expire; this way nothing is kept until then.
    fn give_back(&self, agent: &Agent) {
        give_back(agent, self.reserved.as_deref());
    }
}

fn give_back(agent: &Agent, reserved: Option<&str>) {
    if let Some(id) = reserved {
        let _either_way = agent.ask("DELETE", &format!("/v1/containers/{}", agent::encoded(id)), "");
    }
}

/// Gives the container a socket, unless it is one that gets none.
pub(super) fn inject(call: &Call, config: &Config, report: &Report, started: Instant) -> Result<(), Error> {
    config.check()?;
    let id = call.id.as_deref().ok_or(Error::CommandLine("container"))?;
    let path = call.configuration();
    let text = file::read(&path)?;
    let (bundle, root) = (Some(absolute(&call.bundle)), call.root.as_deref());
    let subject = Subject { id, bundle, root, text: &text, path: &path };
    let agent = Agent::new(config.admin_socket(), config.trusted(), started + config.budget());
    let Some(edited) = edited(&subject, config, &agent, report)? else { return Ok(()) };
    file::replace(&path, &edited.text).inspect_err(|_| edited.give_back(&agent))
}

/// Reserves a socket for the container, and puts its address into the configuration. None where it gets no socket.
pub(super) fn edited(
    subject: &Subject<'_>,
    config: &Config,
    agent: &Agent,
    report: &Report,
) -> Result<Option<Edited>, Error> {
    let garbled =
        |error: serde_json::Error| Error::Garbled { path: subject.path.to_owned(), why: error.to_string() };
    let bundle = Bundle::read(subject.text).map_err(garbled)?;
    let Some(identity) = identify(subject.id, &bundle, config) else { return Ok(None) };
    let container =
        Container { id: subject.id, bundle: subject.bundle.as_deref(), network: bundle.network(), identity };
    let asked = reserve(agent, &container).inspect_err(|_| {
        // One that may not start without a socket does not.
        if !config.fail_closed {
            missed::leave(agent.socket(), subject.id, subject.root, &container.request(subject.id));
        }
    });
    let Some((reserved, id)) = asked? else { return Ok(None) };
    let hooks = Hooks::new(config, agent, &id, report);
    let new = reserved.new.then_some(id);
    reserved.check().map_err(|what| {
        give_back(agent, new.as_deref());
        Error::Offer { socket: agent.socket().to_owned(), what }
    })?;
    for warning in &reserved.warnings {
        report.warn(warning);
    }
    let (gift, refused) = reserved.gift(config, agent.trusted());
    let edited = edit::edit(subject.text, &gift, &|ours| hooks.list(ours)).map_err(garbled);
    let edited = edited.and_then(|edited| {
        let in_the_way = edited.in_the_way.as_ref().map(|theirs| format!("{theirs} is a mount of its own"));
        match refused.or(in_the_way) {
            Some(why) if gift.variables.is_empty() => return Err(Error::Mount { why }),
            Some(why) => report.warn(&format!("its Unix socket is not mounted: {why}")),
            None => {}
        }
        Ok(edited)
    });
    let text = edited.inspect_err(|_| give_back(agent, new.as_deref()))?.text;
    Ok(Some(Edited { text, reserved: new }))
}

impl Reserved {
    /// Refuses an answer with variables that do not name a socket, those that belong to the mount included: an agent never
    /// sends any, so whatever sent them is not one.
    fn check(&self) -> Result<(), String> {
        let of_mount = self.unix_socket.iter().flat_map(|socket| &socket.env);
        self.env.iter().chain(of_mount).try_for_each(|(name, value)| variables::check(name, value))
    }

    /// What the container is given, and why its Unix socket is not mounted where it has one that is not. The two variables of its
    /// address do not depend on the mount.
    fn gift(self, config: &Config, trusted: Trusted) -> (Gift, Option<String>) {
        let mount = self.unix_socket.map(|socket| socket.mount(config, trusted)).transpose();
        let (mount, refused) = match mount {
            Ok(mount) => (mount, None),
            Err(why) => (None, Some(why)),
        };
        (Gift { variables: self.env, mount }, refused)
    }
}

impl UnixSocket {
    /// The mount of its directory.
    ///
    /// # Errors
    /// With the reason, where the mount would be elsewhere than `unix_path` says, the directory belongs to a user whose answers
    /// are not trusted, or it cannot be seen from here: the runtime could not mount it and would start nothing. Such a directory
    /// belongs to an agent in a container of its own, or to another user.
    fn mount(self, config: &Config, trusted: Trusted) -> Result<Mount, String> {
        let Self { mount: Mounted { source, destination }, env } = self;
        let wanted = config.unix_path.parent().and_then(Path::to_str).unwrap_or_default();
        if !unixgram::is_same(&destination, wanted) {
            return Err(format!(
                "the agent wants it at {destination:?} and unix_path in oci.toml at {wanted:?}; set unix_path to the agent's unix.path"
            ));
        }
        match source.metadata() {
            _ if !source.is_absolute() => Err(format!("{} is not an absolute path", source.display())),
            Ok(found) if !trusted.owns(&found) => {
                Err(format!("{} belongs to user {}, who is not trusted", source.display(), found.uid()))
            }
            Ok(found) if found.is_dir() => match source.to_str() {
                Some(text) => Ok(Mount { source: text.to_owned(), destination, variables: env }),
                None => Err(format!("{} is not UTF-8", source.display())),
            },
            _ => Err(format!("{} is not a directory that can be reached", source.display())),
        }
    }
}

/// Who the container is; none where it gets no socket.
fn identify(id: &str, bundle: &Bundle, config: &Config) -> Option<Identity> {
    let identities = config.identities();
    let mut annotations = bundle.annotations.clone().unwrap_or_default();
    if identities.is_sandbox(bundle, &annotations) {
        return None;
    }
    annotations.extend(docker::annotations(&config.docker_root, id));
    let facts = Facts { id, hostname: bundle.hostname.as_deref().unwrap_or_default(), annotations };
    let identity = identities.identify(&facts).unwrap_or_default();
    (config.select == Select::All || wants(&identity)).then_some(identity)
}

/// Whether a container has opted in.
pub(super) fn wants(identity: &Identity) -> bool {
    let said = identity.labels.get(ENABLED).map(String::as_str);
    said.and_then(read_switch) == Some(true)
}

/// Asks for a socket. None where the agent says that the container does not want one.
fn reserve(agent: &Agent, container: &Container<'_>) -> Result<Option<(Reserved, String)>, Error> {
    let mut id = container.id.to_owned();
    let mut answer = agent.ask("POST", "/v1/containers", &container.request(&id))?;
    if let (409, Some(bundle)) = (answer.status, container.bundle) {
        // Ids are unique for one caller of the runtime only; bundles are for all of them.
        id = format!("{id}.{:08x}", hash(bundle));
        answer = agent.ask("POST", "/v1/containers", &container.request(&id))?;
    }
    match answer {
        Answer { status: status @ (200 | 201), body } => {
            let mut reserved: Reserved = serde_json::from_str(&body).map_err(|error| Error::Answer {
                socket: agent.socket().to_owned(),
                why: error.to_string(),
            })?;
            reserved.new = status == 201;
            Ok(Some((reserved, id)))
        }
        Answer { status: 204, .. } => Ok(None),
        answer => Err(answer.refusal()),
    }
}

/// FNV-1a: no secret, only short and always the same.
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// The body of a reserve call.
#[derive(Serialize)]
struct Request<'a> {
    container_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_id: &'a Option<String>,
    labels: &'a BTreeMap<String, String>,
    network: Mode<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bundle: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sandbox_id: &'a Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod_uid: &'a Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: &'a Option<String>,
}

/// The network as a reserve call names it.
#[derive(Serialize)]
#[serde(tag = "mode", rename_all = "snake_case")]
enum Mode<'a> {
    Host,
    Netns { path: &'a Path },
    New,
}

impl Container<'_> {
    fn request(&self, id: &str) -> String {
        let identity = &self.identity;
        let request = Request {
            container_id: id,
            task_id: &identity.task_id,
            labels: &identity.labels,
            network: match &self.network {
                Network::Host => Mode::Host,
                Network::Path(path) => Mode::Netns { path },
                Network::New => Mode::New,
            },
            bundle: self.bundle,
            sandbox_id: &identity.sandbox_id,
            pod_uid: &identity.pod_uid,
            image: &identity.image,
        };
        json(&request)
    }
}

/// The hooks that a container is given.
#[derive(Debug)]
struct Hooks {
    path: Option<String>,
    arguments: Vec<String>,
    /// What the wrapper has left of the budget, for the hook that the container waits for; the one for its end has its
    /// own.
    left: Duration,
    budget: Duration,
    timeout: u64,
    poststop: bool,
}

impl Hooks {
    fn new(config: &Config, agent: &Agent, id: &str, report: &Report) -> Self {
        let budget = config.budget();
        let mut arguments: Vec<String> =
            ["--container", id, "--admin-socket", &agent.socket().to_string_lossy()]
                .map(str::to_owned)
                .into();
        if config.fail_closed {
            arguments.push("--fail-closed".to_owned());
        }
        if config.agent_user != trust::AGENT {
            arguments.extend(["--agent-user".to_owned(), config.agent_user.clone()]);
        }
        // crun keeps what hooks write to stderr to itself.
        if let Some(log) = report.for_hooks().and_then(Path::to_str) {
            arguments.extend(["--log".to_owned(), log.to_owned()]);
        }
        // An agent that numbers processes otherwise is passed a handle; so it is where this program may not look.
        let shares = agent.shares_processes();
        let descriptors = !shares && descriptors::socket_of(agent.socket()).exists();
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

    fn list(&self, ours: &Remembered) -> Staged {
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

fn absolute(path: &Path) -> String {
    path.canonicalize().unwrap_or_else(|_| path.to_owned()).to_string_lossy().into_owned()
}
