//! Completion of names in real shells.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::agent::{Agent, BINARY, ran};
use crate::tools;

/// A shell would execute this if it were inserted into a line as it is.
const HOSTILE: &str = "$(touch owned)";

/// Tasks with names that are safe, split by bash, or not to be offered.
fn agent_with_tasks() -> Agent {
    let agent = Agent::start();
    for (number, task) in ["shop.one", "shop.two", "a:b:c", HOSTILE, "-rf", "x y"].iter().enumerate() {
        let address = agent.reserve(&format!("c-{number}"), task);
        address.send("request.latency:4|ms\nrequest.count:1|c\n`touch owned`:1|c");
    }
    agent.until("every task has a metric", || {
        let (_, tasks) = agent.get("/v1/tasks");
        tasks.as_array().unwrap().iter().all(|task| task["series"] == 3)
    });
    agent
}

/// A search path that begins with this program.
fn search_path() -> String {
    let directory = Path::new(BINARY).parent().unwrap();
    format!("{}:{}", directory.display(), std::env::var("PATH").unwrap())
}

/// A shell on a terminal.
struct Terminal<'a> {
    agent: &'a Agent,
    child: Child,
    keys: ChildStdin,
    shown: Arc<Mutex<String>>,
}

impl<'a> Terminal<'a> {
    fn start(agent: &'a Agent, directory: &Path, shell: &str) -> Self {
        let mut command = agent.command(&[]);
        let environment: Vec<_> =
            command.get_envs().map(|(name, value)| (name.to_owned(), value.unwrap().to_owned())).collect();
        command = Command::new("script");
        command.args(["-qfec", shell, "/dev/null"]).envs(environment).env("PATH", search_path());
        command.env("TERM", "dumb").env("PS1", "> ").env("HOME", directory).current_dir(directory);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (keys, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let shown = Arc::new(Mutex::new(String::new()));
        let kept = Arc::clone(&shown);
        std::thread::spawn(move || {
            let mut bytes = [0; 1024];
            while let Ok(n @ 1..) = output.read(&mut bytes) {
                kept.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..n]));
            }
        });
        Self { agent, child, keys, shown }
    }

    /// Types keys until a text appears after them. They are typed again every two seconds, because a shell on a busy machine
    /// may get no names in time.
    fn type_until(&mut self, keys: &str, text: &str) -> String {
        let shown = Arc::clone(&self.shown);
        let (agent, typed) = (self.agent, &mut self.keys);
        let mut looks = 0;
        agent.until(&format!("{text:?} after {keys:?}"), || {
            if looks % 200 == 0 {
                shown.lock().unwrap().clear();
                typed.write_all(keys.as_bytes()).unwrap();
            }
            looks += 1;
            shown.lock().unwrap().contains(text)
        });
        shown.lock().unwrap().clone()
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        // The shell gets HUP with the end of its terminal.
        let _either_way = self.child.kill();
        let _either_way = self.child.wait();
    }
}

/// Completes names and lists them, in a shell that has our registration.
fn complete_names(mut terminal: Terminal<'_>) {
    terminal.type_until("\x15tallyport tail shop.o\t", "shop.one");
    terminal.type_until("\x15tallyport explain shop.one request.l\t", "request.latency");
    terminal.type_until("\x15tallyport tail a:b\t", "a:b:c");
    let line = format!("\x15tallyport explain --url http://{} shop.t\t", terminal.agent.http);
    terminal.type_until(&line, "shop.two");
    let listed = terminal.type_until("\x15tallyport tail \t\t", "shop.two");
    assert!(listed.contains("shop.one") && !listed.contains("touch") && !listed.contains("-rf"), "{listed}");
    let listed = terminal.type_until("\x15tallyport tail shop.one \t\t\t", "request.count");
    assert!(!listed.contains("touch"), "{listed}");
}

#[test]
fn bash_completes_names_and_inserts_none_that_it_would_execute() {
    let Some(bash) = tools::shell("bash") else { return };
    let (agent, directory) = (agent_with_tasks(), tempfile::tempdir().unwrap());
    let shell = format!("{} --norc --noprofile -i", bash.display());
    let mut terminal = Terminal::start(&agent, directory.path(), &shell);
    terminal.type_until("bind 'set enable-bracketed-paste off'; echo ready-$((1+1))\n", "ready-2");
    terminal.type_until("source <(tallyport completions bash); echo loaded-$((1+1))\n", "loaded-2");
    complete_names(terminal);
    assert!(!directory.path().join("owned").exists());
}

#[test]
fn zsh_completes_names_from_the_installed_file_at_the_first_key() {
    let Some(zsh) = tools::shell("zsh") else { return };
    let (agent, directory) = (agent_with_tasks(), tempfile::tempdir().unwrap());
    let registration = ran(Command::new(BINARY).args(["completions", "zsh"])).out;
    std::fs::write(directory.path().join("_tallyport"), registration).unwrap();
    let mut terminal = Terminal::start(&agent, directory.path(), &format!("{} -f -i", zsh.display()));
    let load =
        "unsetopt zle_bracketed_paste; bindkey -e; fpath=($PWD $fpath); autoload -U compinit; compinit -u -D";
    terminal.type_until(&format!("{load}; echo loaded-$((1+1))\n"), "loaded-2");
    complete_names(terminal);
    assert!(!directory.path().join("owned").exists());
}

#[test]
fn fish_completes_names() {
    let Some(fish) = tools::shell("fish") else { return };
    let (agent, directory) = (agent_with_tasks(), tempfile::tempdir().unwrap());
    let complete = |line: &str| {
        let script = format!("tallyport completions fish | source; complete -C '{line}'");
        let mut command = Command::new(&fish);
        let environment: Vec<_> = agent
            .command(&[])
            .get_envs()
            .map(|(name, value)| (name.to_owned(), value.unwrap().to_owned()))
            .collect();
        command.args(["--no-config", "-c", &script]).envs(environment).env("PATH", search_path());
        ran(command.env("HOME", directory.path()).current_dir(directory.path())).out
    };
    // Repeated, because a shell on a busy machine may get no names in time.
    let complete_until = |line: &str, offers: &dyn Fn(&str) -> bool| {
        let mut offered = String::new();
        agent.until(&format!("fish completes {line:?}"), || {
            offered = complete(line);
            offers(&offered)
        });
        offered
    };
    let of_url = format!("tallyport explain --url http://{} shop.t", agent.http);
    for (line, name) in [
        ("tallyport tail shop.o", "shop.one"),
        ("tallyport explain shop.one request.l", "request.latency"),
        ("tallyport tail a:b", "a:b:c"),
        (&of_url, "shop.two"),
    ] {
        complete_until(line, &|offered| offered == format!("{name}\n"));
    }
    let listed = complete_until("tallyport tail ", &|offered| offered.contains("shop.one\n"));
    assert!(!listed.contains("touch") && !listed.contains("-rf"), "{listed}");
    assert!(!directory.path().join("owned").exists());
}

#[test]
fn completion_without_an_agent_is_quiet_and_still_knows_options() {
    let asked = |words: &[&str]| {
        let mut command = Command::new(BINARY);
        command.arg("--").args(words).env("_TALLYPORT_COMPLETE", "bash");
        command.env("_CLAP_COMPLETE_INDEX", (words.len() - 1).to_string());
        command.env("TALLYPORT_URL", "http://127.0.0.1:1").env("TALLYPORT_ADMIN_SOCKET", "/nowhere.sock");
        ran(&mut command)
    };
    let names = asked(&["tallyport", "tail", "w"]);
    assert_eq!((names.out.as_str(), names.err.as_str()), ("", ""));
    let options = asked(&["tallyport", "tail", "--rej"]);
    assert_eq!((options.out.as_str(), options.err.as_str()), ("--rejected", ""));
    let formats = asked(&["tallyport", "metrics", "details", "web.1", "--window", "o"]);
    assert_eq!(formats.out, "open");
}
