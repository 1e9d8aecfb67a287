//! `tallyport doctor --probe`: starts a short-lived container as others are started on this node, and checks whether
//! its metric arrives.
//!
//! Its process is this program, which sends one metric (`tallyport probe-send`). The first step that fails is reported
//! with its remedy.

use std::fs::File;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use super::args::{DoctorArgs, ProbeName};
use super::doctor::finding::{Finding, FindingStatus};
use super::failure::{Failure, code};
use super::output::Console;
use crate::client::Client;
use crate::wire::{RecordDocument, TaskMetrics};

/// The metric that the probe sends, and its value.
const METRIC: &str = "tallyport.probe";
const VALUE: f64 = 42.0;
/// How long an engine may take to run the container.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long the metric may take to be readable: at most a window of the default length.
const ARRIVAL: Duration = Duration::from_secs(15);
/// The path of this program in the container.
const INSIDE: &str = "/tallyport-probe";
/// Directories of the node that a program needs in an empty container.
const SYSTEM: [&str; 4] = ["/bin", "/lib", "/lib64", "/usr"];
/// Selects the engine's default runtime.
const DEFAULT: &str = "default";

/// A problem and its remedy.
struct Trouble {
    found: String,
    advice: String,
}

fn new_trouble(found: impl Into<String>, advice: impl Into<String>) -> Trouble {
    Trouble { found: found.into(), advice: advice.into() }
}

/// One container and its files, which are removed on drop.
struct Probe<'a> {
    args: &'a DoctorArgs,
    subject: ProbeName,
    id: String,
    directory: PathBuf,
    wrapper: PathBuf,
}

/// Runs a probe in each of the requested ways, one after the other.
pub(super) async fn run_probes(args: &DoctorArgs) -> Vec<Finding> {
    let mut findings = Vec::new();
    for subject in &args.probe {
        match Probe::new(args, *subject) {
            Ok(probe) => probe.run_checks(&mut findings).await,
            Err(error) => findings.push(
                Finding::new(
                    "probe",
                    FindingStatus::Failed,
                    format!("{subject}: its directory cannot be created: {error}"),
                )
                .with_advice("is there room in the directory for temporary files (TMPDIR)?"),
            ),
        }
    }
    findings
}

impl<'a> Probe<'a> {
    fn new(args: &'a DoctorArgs, subject: ProbeName) -> std::io::Result<Self> {
        let id = format!("tallyport-probe-{subject}-{}", std::process::id());
        let directory = std::env::temp_dir().join(&id);
        // Fails if something else is there.
        std::fs::create_dir(&directory)?;
        let wrapper = args.wrapper.clone().map_or_else(
            || std::env::current_exe().map(|program| program.with_file_name("tallyport-oci")),
            Ok,
        );
        let probe = Self { args, subject, id, directory, wrapper: wrapper? };
        for name in ["rootfs", "state"] {
            std::fs::create_dir(probe.directory.join(name))?;
        }
        Ok(probe)
    }

    async fn run_checks(&self, findings: &mut Vec<Finding>) {
        let subject = self.subject;
        let mut note = |step: &str, result: Result<String, Trouble>| {
            let ok = result.is_ok();
            findings.push(match result {
                Ok(found) => Finding::new("probe", FindingStatus::Ok, format!("{subject}, {step}: {found}")),
                Err(Trouble { found, advice }) => {
                    Finding::new("probe", FindingStatus::Failed, format!("{subject}, {step}: {found}"))
                        .with_advice(advice)
                }
            });
            ok
        };
        if note("programs", self.check_programs()) && note("start and address", self.start()) {
            let arrived = self.wait_for_metric(&self.args.admin.build_client()).await;
            note("arrival", arrived);
        }
    }

    /// Checks that the required programs can be started.
    fn check_programs(&self) -> Result<String, Trouble> {
        let program = self.subject.program_name();
        if !self.subject.is_runtime() {
            let said = self.run_command(Command::new(program).arg("version")).map_err(|why| {
                let advice = format!("is {program} installed, and its service running?");
                new_trouble(format!("{program} does not work: {why}"), advice)
            })?;
            return Ok(format!("{program} answers ({})", first_line(&said)));
        }
        let wrapper = self.wrapper.display();
        let mut command = Command::new(&self.wrapper);
        let version = self.run_command(command.arg("--version").env("TALLYPORT_OCI_RUNTIME", program));
        let said = version.map_err(|why| {
            let advice = "install both; --wrapper says where tallyport-oci is";
            new_trouble(format!("{wrapper} starts no {program}: {why}"), advice)
        })?;
        Ok(format!("{wrapper} starts {}", first_line(&said)))
    }

    /// Runs the container to its end; returns the address that its process had.
    fn start(&self) -> Result<String, Trouble> {
        let command = match self.subject {
            ProbeName::Runc | ProbeName::Crun => self.write_bundle().map(|()| self.runtime_command()),
            ProbeName::Containerd => Ok(self.containerd_command()),
            ProbeName::Docker => self.docker_command(),
            ProbeName::Podman => Ok(self.podman_command()),
        };
        let mut command = command
            .map_err(|error| new_trouble(format!("it cannot be prepared: {error}"), "run it as root"))?;
        let said = self.run_command(&mut command);
        self.clean_up();
        let said = said.map_err(|why| {
            let advice = self.start_failure_advice(&why);
            new_trouble(format!("the container did not run: {why}"), advice)
        })?;
        let address = said.lines().find_map(|line| line.trim().strip_prefix("sent to "));
        address.map(|address| format!("its process had {address}")).ok_or_else(|| {
            new_trouble(
                format!("its process had no STATSD_UDP_HOST: {}", said.trim()),
                "is the agent running, and is its socket the admin_socket of /etc/tallyport/oci.toml? Is mode = \
                 \"inject\" there, and the runtime of containers tallyport-oci?",
            )
        })
    }

    /// The remedy for a container that did not run.
    fn start_failure_advice(&self, why: &str) -> String {
        let engine = self.subject;
        let unknown = ["nknown", "not found", "nvalid"].iter().any(|word| why.contains(word));
        match engine {
            ProbeName::Docker if unknown => format!(
                "`tallyport hook install --for docker`, then `systemctl reload docker`; --runtime-name {DEFAULT} \
                 takes docker's own"
            ),
            ProbeName::Podman if unknown => {
                format!("`tallyport hook install --for podman`; --runtime-name {DEFAULT} takes podman's own")
            }
            _ => format!("without the wrapper, does {engine} start a container?"),
        }
    }

    /// Waits for the metric under the container's task.
    async fn wait_for_metric(&self, client: &Client) -> Result<String, Trouble> {
        let task = &self.id;
        let (path, since) = (format!("/v1/tasks/{task}/metrics?window=all"), Instant::now());
        let mut known = false;
        while since.elapsed() < ARRIVAL {
            let answer = client.get(&path).await;
            let answer = answer.map_err(|error| new_trouble(error.to_string(), "is the agent running?"))?;
            known |= answer.status == 200;
            let records = serde_json::from_slice::<TaskMetrics>(&answer.body).map(|answer| answer.metrics);
            let ours = |record: &RecordDocument| {
                record.name == METRIC && record.value.is_some_and(|value| (value - VALUE).abs() < 0.5)
            };
            if records.is_ok_and(|records| records.iter().any(ours)) {
                return Ok(format!("{METRIC} arrived under task {task}"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(if known {
            new_trouble(
                format!("{METRIC} did not arrive under task {task} within {} s", ARRIVAL.as_secs()),
                format!(
                    "`tallyport explain {task}` says how far it came; is `lo` up in the container's network?"
                ),
            )
        } else {
            new_trouble(
                format!("the agent at {} knows no task {task}", client.target()),
                "the wrapper asked another agent: compare admin_socket in /etc/tallyport/oci.toml with --admin-socket",
            )
        })
    }

    /// Runs a command. Returns its output if it succeeds in time, and the reason otherwise.
    fn run_command(&self, command: &mut Command) -> Result<String, String> {
        let file = |name: &str| File::create(self.directory.join(name)).map_err(|error| error.to_string());
        // Files instead of pipes, because a container inherits them from the runtime.
        command.stdin(Stdio::null()).stdout(file("stdout")?).stderr(file("stderr")?);
        if let Some(socket) = &self.args.admin.admin_socket {
            command.env("TALLYPORT_ADMIN_SOCKET", socket);
        }
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child = command.spawn().map_err(|error| format!("{program}: {error}"))?;
        let since = Instant::now();
        let status = loop {
            match child.try_wait().map_err(|error| error.to_string())? {
                Some(status) => break status,
                None if since.elapsed() > PATIENCE => {
                    let _either_way = child.kill();
                    let _either_way = child.wait();
                    return Err(format!("{program} did not end within {} s", PATIENCE.as_secs()));
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        let read = |name: &str| std::fs::read_to_string(self.directory.join(name)).unwrap_or_default();
        let (out, err) = (read("stdout"), read("stderr"));
        let nothing_sent = status.code() == Some(i32::from(code::NO_DATA));
        if status.success() || nothing_sent {
            Ok(out + &err)
        } else {
            Err(format!("{status}: {}", err.trim()))
        }
    }

    fn rootfs_path(&self) -> PathBuf {
        self.directory.join("rootfs")
    }

    fn write_bundle(&self) -> std::io::Result<()> {
        let bind = |(from, to): (PathBuf, &str)| json!({"destination": to, "type": "bind", "source": from, "options": ["rbind", "ro"]});
        let mut mounts: Vec<_> = bind_mounts().map(bind).collect();
        mounts.push(json!({"destination": "/proc", "type": "proc", "source": "proc"}));
        mounts.push(
            json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]}),
        );
        let namespaces = ["pid", "ipc", "uts", "mount", "network"].map(|kind| json!({"type": kind}));
        let config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false, "user": {"uid": 0, "gid": 0}, "cwd": "/", "args": [INSIDE, "probe-send"],
                "env": ["PATH=/usr/bin:/bin"]
            },
            "root": {"path": "rootfs"},
            "mounts": mounts,
            "annotations": {"tallyport.task-id": self.id},
            "linux": {"cgroupsPath": format!("/{}", self.id), "namespaces": namespaces},
        });
        std::fs::write(self.directory.join("config.json"), config.to_string())
    }

    fn runtime_command(&self) -> Command {
        let mut command = Command::new(&self.wrapper);
        command.env("TALLYPORT_OCI_RUNTIME", self.subject.program_name());
        command.arg("--root").arg(self.directory.join("state"));
        command.arg("run").arg("--bundle").arg(&self.directory).arg(&self.id);
        command
    }

    fn containerd_command(&self) -> Command {
        let mut command = Command::new("ctr");
        command.args(["run", "--rm", "--runc-binary"]).arg(&self.wrapper);
        command.args(["--annotation", &format!("tallyport.task-id={}", self.id)]);
        for (from, to) in bind_mounts() {
            let mount = format!("type=bind,src={},dst={to},options=rbind:ro", from.display());
            command.args(["--mount", &mount]);
        }
        command.arg("--rootfs").arg(self.rootfs_path()).args([&self.id, INSIDE, "probe-send"]);
        command
    }

    /// A container with an empty image and the node's programs.
    fn docker_command(&self) -> std::io::Result<Command> {
        let nothing = self.directory.join("nothing.tar");
        // An empty tar is two empty blocks.
        std::fs::write(&nothing, [0; 1024])?;
        self.run_command(Command::new("docker").arg("import").arg(&nothing).arg(self.image_name()))
            .map_err(std::io::Error::other)?;
        let mut command = Command::new("docker");
        command.args(["run", "--rm", "--name", &self.id, "--network", "none", "--pull", "never"]);
        if self.args.runtime_name != DEFAULT {
            command.args(["--runtime", &self.args.runtime_name]);
        }
        add_volume_args(&mut command);
        command.args([&self.image_name(), INSIDE, "probe-send"]);
        Ok(command)
    }

    fn image_name(&self) -> String {
        format!("{}:nothing", self.id)
    }

    fn podman_command(&self) -> Command {
        let mut command = Command::new("podman");
        if self.args.runtime_name != DEFAULT {
            command.args(["--runtime", &self.args.runtime_name]);
        }
        command.args(["run", "--rm", "--name", &self.id, "--network", "none"]);
        command.args(["--annotation", &format!("tallyport.task-id={}", self.id)]);
        add_volume_args(&mut command);
        command.arg("--rootfs").arg(self.rootfs_path()).args([INSIDE, "probe-send"]);
        command
    }

    /// Removes what is left of the container.
    fn clean_up(&self) {
        let mut command = Command::new(self.subject.program_name());
        match self.subject {
            ProbeName::Runc | ProbeName::Crun => {
                command.arg("--root").arg(self.directory.join("state"));
                command.args(["delete", "--force", &self.id]);
            }
            ProbeName::Docker => {
                command.args(["image", "rm", "--force", &self.image_name()]);
            }
            // These remove it themselves (--rm).
            ProbeName::Containerd | ProbeName::Podman => return,
        }
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let _either_way = quiet.status();
    }
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        // Do not remove the directory while a directory of the node is still mounted in it.
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        if !mounts.contains(&self.id) {
            let _either_way = std::fs::remove_dir_all(&self.directory);
        }
    }
}

/// Sources and targets of the mounts of a container.
fn bind_mounts() -> impl Iterator<Item = (PathBuf, &'static str)> {
    let program = std::env::current_exe().ok().map(|program| (program, INSIDE));
    let system = SYSTEM.into_iter().filter(|path| Path::new(path).is_dir());
    system.map(|path| (PathBuf::from(path), path)).chain(program)
}

/// The same as arguments of docker and podman.
fn add_volume_args(command: &mut Command) {
    for (from, to) in bind_mounts() {
        command.args(["--volume", &format!("{}:{to}:ro", from.display())]);
    }
}

fn first_line(text: &str) -> &str {
    text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default()
}

/// `tallyport probe-send`: the process of a probe.
pub(super) fn send_probe(out: &mut Console) -> Result<ExitCode, Failure> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (Some(host), Some(port)) = (variable("STATSD_UDP_HOST"), variable("STATSD_UDP_PORT")) else {
        out.write_line("neither STATSD_UDP_HOST nor STATSD_UDP_PORT is set")?;
        return Ok(ExitCode::from(code::NO_DATA));
    };
    let address = format!("{host}:{port}");
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.send_to(format!("{METRIC}:{VALUE}|c").as_bytes(), &address)?;
    out.write_line(format!("sent to {address}"))?;
    Ok(ExitCode::SUCCESS)
}
