//! The page of the wrapper, `tallyport-oci`, which contains no texts of its own so that it stays small.

use clap_mangen::roff::{Roff, bold, roman};

use super::ManualPage;
use super::sections::{PageEntry, add_related_pages};

const NAME: &str = "tallyport-oci";

const SETTINGS: [PageEntry; 12] = [
    ("mode", "inject (default), or pass-through: every call is passed through unchanged."),
    ("select", "all (default), or opt-in: only containers with the annotation tallyport.enabled = true."),
    ("fail_closed", "true: a container does not start without a socket. Default: false."),
    ("budget_ms", "Time limit for all calls to the agent together, in milliseconds. Default: 1000."),
    ("poststop", "auto (default), always or never: whether containers get a poststop hook."),
    ("admin_socket", "Where the agent listens. Default: the agent's own default."),
    (
        "agent_user",
        "The user that the agent runs as, by name or number, if it is not root. Default: tallyport.",
    ),
    (
        "unix_path",
        "The agent's unix.path. Nothing is mounted anywhere else. Default: /var/run/datadog/dsd.socket.",
    ),
    ("runtime", "The real runtime, by name or path. Default: runc."),
    ("[runtimes]", "The real runtime for each name under which the wrapper is called."),
    ("docker_root", "Where docker keeps names and labels. Default: /var/lib/docker; empty to ignore them."),
    ("[[identity]], [[sandbox]]", "Rules for the identity of containers, applied before the built-in ones."),
];

const VARIABLES: [PageEntry; 3] = [
    ("TALLYPORT_OCI_CONFIG", "The settings file. It must exist."),
    ("TALLYPORT_OCI_RUNTIME", "The real runtime, instead of the setting runtime."),
    ("TALLYPORT_ADMIN_SOCKET", "The agent's admin socket, instead of the setting admin_socket."),
];

const FILES: [PageEntry; 2] = [
    ("/etc/tallyport/oci.toml", "The settings. The file need not exist."),
    ("<admin.socket>.missed", "Notes about containers that started without a socket, for the agent."),
];

const EXIT: [PageEntry; 2] = [
    ("1", "The runtime could not be executed, or a container was refused a start because of fail_closed."),
    ("other", "The exit code of the real runtime, which takes the place of this program."),
];

pub(super) fn render_page() -> std::io::Result<ManualPage> {
    let mut roff = Roff::new();
    let source = format!("tallyport {}", env!("CARGO_PKG_VERSION"));
    roff.control("TH", [NAME, "8", "", source.as_str(), "tallyport"]);
    roff.control("SH", ["NAME"]);
    roff.text([roman(
        "tallyport-oci - an OCI runtime that gives containers the address of their StatsD socket",
    )]);
    roff.control("SH", ["SYNOPSIS"]);
    roff.text([bold(NAME), roman(" [ARGUMENTS OF THE RUNTIME]")]);
    roff.control("SH", ["DESCRIPTION"]);
    for paragraph in [
        "Container engines call this program as they would call runc. It prepares the container and then executes the real runtime \
         with the same arguments and the same process number.",
        "For create, run and restore, it asks the agent for a socket and adds STATSD_UDP_HOST and STATSD_UDP_PORT to the environment \
         in config.json, and a hook that tells the agent which process the container is. For exec, it adds the same variables to the \
         environment of the new process. Every other call is passed through.",
        "If the agent does not answer, the container starts without a socket, and the reason is written to standard error and to the \
         log of the runtime. With fail_closed = true it does not start.",
        "The name of a link selects the runtime: a link named tallyport-crun executes crun. tallyport hook install configures \
         engines to use this program.",
    ] {
        roff.control("PP", []);
        roff.text([roman(paragraph)]);
    }
    add_entries(&mut roff, "SETTINGS", &SETTINGS);
    add_entries(&mut roff, "ENVIRONMENT", &VARIABLES);
    add_entries(&mut roff, "FILES", &FILES);
    add_entries(&mut roff, "EXIT STATUS", &EXIT);
    #[cfg(feature = "install")]
    let related = ["tallyport(1)", "tallyport-hook(1)", "tallyport-doctor(1)", "agent.toml(5)"];
    #[cfg(not(feature = "install"))]
    let related = ["tallyport(1)", "tallyport-doctor(1)", "agent.toml(5)"];
    add_related_pages(&mut roff, &related.map(str::to_owned));
    let mut text = Vec::new();
    roff.to_writer(&mut text)?;
    Ok(ManualPage { name: NAME.to_owned(), section: "8", text })
}

fn add_entries(roff: &mut Roff, section: &str, entries: &[PageEntry]) {
    roff.control("SH", [section]);
    for (name, meaning) in entries {
        roff.control("TP", []);
        roff.text([bold(*name)]);
        roff.text([roman(*meaning)]);
    }
}
