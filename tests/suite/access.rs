//! Access control with a real agent: TLS, tokens, host names and limits of connections.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tallyport::client::{Client, LineStream, Response};
use tallyport::net::clock;

use crate::agent::{Agent, BINARY, PATIENCE, ran};
use crate::tools;

const TOKEN: &str = "0123456789-scraper";
const OTHER: &str = "0123456789-people";

/// A directory with a configuration that can be changed while an agent runs.
pub(crate) struct Files(tempfile::TempDir);

impl Files {
    /// A certificate for this machine, and one token.
    pub(crate) fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.certify("a");
        files.write("tokens", &format!("# scraper\n{TOKEN}\n"));
        files.configure("a", "");
        files
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.at(name).to_str().unwrap().to_owned()
    }

    /// Writes a file that only its owner may read.
    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.at(name), text).unwrap();
        std::fs::set_permissions(self.at(name), std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn certify(&self, name: &str) {
        self.certify_until(name, 100 * 365);
    }

    /// A certificate that is valid for this many days from now.
    fn certify_until(&self, name: &str, days: i64) {
        let mut wanted =
            rcgen::CertificateParams::new(["localhost", "127.0.0.1"].map(str::to_owned)).unwrap();
        let until = clock::wall_time().as_secs() + days * 86_400;
        wanted.not_after = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(until.try_into().unwrap());
        let key = rcgen::KeyPair::generate().unwrap();
        self.write(&format!("{name}.crt"), &wanted.self_signed(&key).unwrap().pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    fn configure(&self, certificate: &str, more: &str) {
        let (certificate, key) =
            (self.text(&format!("{certificate}.crt")), self.text(&format!("{certificate}.key")));
        let tokens = self.text("tokens");
        self.write(
            "agent.toml",
            &format!(
                "[http]\ntls_certificate = {certificate:?}\ntls_key = {key:?}\ntokens = {tokens:?}\n{more}\n[windows]\nlength = \"1s\"\n"
            ),
        );
    }

    fn agent(&self) -> Agent {
        Agent::with(&["--config", &self.text("agent.toml")])
    }

    fn client(&self, agent: &Agent, certificate: &str) -> Client {
        let client = Client::new(format!("https://{}", agent.http).parse().unwrap());
        client.with_ca_file(&self.at(&format!("{certificate}.crt"))).unwrap()
    }
}

fn get(agent: &Agent, client: &Client, path: &str) -> Response {
    agent.runtime().block_on(client.get(path)).unwrap()
}

fn code(response: &Response) -> String {
    let document: Value = serde_json::from_slice(&response.body).unwrap_or_default();
    document["code"].as_str().unwrap_or_default().to_owned()
}

fn reload(agent: &Agent) -> (u16, Value) {
    agent.admin("POST", "/v1/config/reload", &Value::Null)
}

#[test]
fn with_a_certificate_and_tokens_only_clients_with_a_token_can_read() {
    let files = Files::new();
    let agent = files.agent();
    let client = files.client(&agent, "a");
    for open in ["/", "/health", "/ready"] {
        assert_eq!(get(&agent, &client, open).status, 200, "{open}");
    }
    for closed in ["/metrics", "/metrics/tasks", "/v1/tasks", "/v0/node", "/v1/openapi.json", "/nowhere"] {
        let refused = get(&agent, &client, closed);
        assert_eq!((refused.status, code(&refused).as_str()), (401, "no_token"), "{closed}");
        let known = get(&agent, &client.clone().with_token(TOKEN.to_owned()), closed);
        assert_eq!(known.status, if closed == "/nowhere" { 404 } else { 200 }, "{closed}");
        let wrong = get(&agent, &client.clone().with_token(OTHER.to_owned()), closed);
        assert_eq!((wrong.status, code(&wrong).as_str()), (401, "unknown_token"), "{closed}");
    }
    let targets = get(&agent, &client.clone().with_token(TOKEN.to_owned()), "/v1/sd");
    let targets: Value = serde_json::from_slice(&targets.body).unwrap();
    assert_eq!(targets[0]["labels"]["__scheme__"], "https");
    let plain = agent.get_raw("/metrics");
    assert!(plain.status == 400 && String::from_utf8_lossy(&plain.body).contains("https://"), "{plain:?}");
    assert_eq!(agent.admin("GET", "/v1/tasks", &Value::Null).0, 200, "the admin socket asks for none");
    let own = get(&agent, &client.with_token(TOKEN.to_owned()), "/metrics");
    let own = String::from_utf8(own.body.to_vec()).unwrap();
    assert!(
        own.contains("tallyport_http_connections_refused_total{listener=\"http\",reason=\"handshake\"} 1\n"),
        "{own}"
    );
    assert!(!agent.log().contains(TOKEN), "no token is logged");
}

#[test]
fn a_reload_that_would_take_tls_and_tokens_away_is_refused_unless_it_is_forced() {
    let files = Files::new();
    let agent = files.agent();
    files.write("agent.toml", "");
    let (status, refused) = reload(&agent);
    let message = refused["message"].as_str().unwrap();
    assert_eq!(status, 400, "{refused}");
    assert!(
        message.contains("http.tls_certificate, http.tls_key and http.tokens are no longer set"),
        "{message}"
    );
    assert!(message.contains("tallyport reload --force"), "{message}");
    let client = files.client(&agent, "a");
    assert_eq!(get(&agent, &client, "/v1/tasks").status, 401, "it still asks");
    // A signal cannot confirm the change.
    agent.signal(nix::sys::signal::Signal::SIGHUP);
    let refusals = || agent.log().matches("configuration refused, the old one stays").count();
    agent.until("the signal is answered", || refusals() >= 2);
    assert_eq!(get(&agent, &client, "/v1/tasks").status, 401);
    let forced = ran(&mut agent.command(&["reload", "--force"]));
    assert_eq!(forced.code, 0, "{forced:?}");
    assert_eq!(agent.get_raw("/v1/tasks").status, 200);
}

#[test]
fn requests_that_are_refused_for_their_tokens_are_counted_and_logged_once() {
    let files = Files::new();
    let agent = files.agent();
    let client = files.client(&agent, "a");
    for _ in 0..5 {
        assert_eq!(get(&agent, &client, "/metrics").status, 401);
        assert_eq!(get(&agent, &client.clone().with_token(OTHER.to_owned()), "/metrics").status, 401);
    }
    let own = agent.admin_text("/metrics");
    for reason in ["missing", "unknown"] {
        let line = format!("tallyport_http_token_failures_total{{reason=\"{reason}\"}} 5\n");
        assert!(own.contains(&line), "{own}");
    }
    agent.until("it is logged", || agent.log().contains("refused requests without a valid token"));
    assert_eq!(agent.log().matches("refused requests without a valid token").count(), 1, "{}", agent.log());
    assert!(!agent.log().contains(OTHER), "no token is logged");
}

#[test]
fn commands_bring_the_token_and_know_whom_to_trust() {
    let files = Files::new();
    let agent = files.agent();
    agent.reserve("c-1", "web.1").send("hits:1|c");
    let run = |args: &[&str], variables: &[(&str, &str)]| {
        let mut command = agent.command(&[&["tasks"], args].concat());
        command.env("TALLYPORT_URL", format!("https://localhost:{}", agent.http.port()));
        ran(command.envs(variables.iter().copied()))
    };
    let (ca, tokens) = (files.text("a.crt"), files.text("tokens"));
    let shown = run(&["--ca", &ca, "--token-file", &tokens], &[]);
    assert!(shown.code == 0 && shown.out.contains("web.1"), "{shown:?}");
    let shown = run(&[], &[("TALLYPORT_CA", &ca), ("TALLYPORT_TOKEN", TOKEN)]);
    assert!(shown.code == 0 && shown.out.contains("web.1"), "{shown:?}");
    let shown = run(&["--ca", &ca], &[("TALLYPORT_TOKEN_FILE", &tokens)]);
    assert!(shown.code == 0 && shown.out.contains("web.1"), "{shown:?}");
    let refused = run(&["--ca", &ca], &[]);
    assert!(refused.code == 1 && refused.err.contains("--token-file"), "{refused:?}");
    let stranger = run(&["--token-file", &tokens], &[]);
    assert!(stranger.code == 5 && stranger.err.contains("--ca"), "{stranger:?}");
    for (flag, file, said) in [("--ca", "missing", "missing"), ("--ca", "tokens", "none in it")] {
        let wrong = run(&[flag, &files.text(file)], &[]);
        assert!(wrong.code == 2 && wrong.err.contains(said), "{wrong:?}");
    }
    files.write("none", "# none\n");
    for file in ["missing", "none"] {
        let wrong = run(&["--ca", &ca, "--token-file", &files.text(file)], &[]);
        assert!(wrong.code == 2 && wrong.err.contains("--token-file"), "{wrong:?}");
    }
}

#[test]
fn a_reload_takes_a_new_certificate_and_streams_that_are_under_way_go_on() {
    let files = Files::new();
    let agent = files.agent();
    let address = agent.reserve("c-1", "web.1");
    let known = |certificate: &str| files.client(&agent, certificate).with_token(TOKEN.to_owned());
    let mut lines = agent.runtime().block_on(known("a").stream_lines("/v1/tasks/web.1/watch")).unwrap();
    assert_eq!(lines.status, 200);
    files.certify("b");
    files.configure("b", "");
    agent.signal(nix::sys::signal::Signal::SIGHUP);
    agent.until("the new certificate is shown", || {
        agent.runtime().block_on(known("b").get("/metrics")).is_ok()
    });
    assert!(agent.runtime().block_on(known("a").get("/metrics")).is_err(), "the old one is not");
    address.send("after:1|c");
    let mut heard = async || loop {
        let line = lines.next().await.unwrap().expect("the stream goes on");
        if line.contains("\"after\"") {
            break;
        }
    };
    agent.runtime().block_on(async { tokio::time::timeout(PATIENCE, heard()).await }).unwrap();
}

#[test]
fn a_certificate_that_cannot_be_used_changes_nothing_and_says_so() {
    let files = Files::new();
    let agent = files.agent();
    let known =
        || agent.runtime().block_on(files.client(&agent, "a").with_token(TOKEN.to_owned()).get("/metrics"));
    let good = std::fs::read_to_string(files.at("a.key")).unwrap();
    files.certify("b");
    std::fs::copy(files.at("b.key"), files.at("a.key")).unwrap();
    let (status, answer) = reload(&agent);
    assert_eq!((status, &answer["code"]), (400, &"bad_configuration".into()));
    assert!(answer["message"].as_str().unwrap().contains("a.key"), "{answer}");
    agent.until("it says so in the log, too", || agent.log().contains("the old one stays"));
    assert_eq!(known().unwrap().status, 200);
    let check = ran(Command::new(BINARY).args(["config", "check", "--config", &files.text("agent.toml")]));
    assert!(check.code == 1 && check.err.contains("a.key"), "{check:?}");
    files.write("a.key", &good);
    files.write("tokens", "short\n");
    let (status, answer) = reload(&agent);
    assert!(status == 400 && answer["message"].as_str().unwrap().contains("line 1"), "{answer}");
    assert_eq!(known().unwrap().status, 200);
    let mut start = Command::new(BINARY);
    start.args(["agent", "--http-listen", "127.0.0.1:0", "--config", &files.text("agent.toml")]);
    let start =
        ran(start.arg("--state-dir").arg(files.at("state")).arg("--admin-socket").arg(files.at("a.sock")));
    assert!(
        start.code == 1 && start.err.contains("http.tokens"),
        "an agent does not start with these tokens either: {start:?}"
    );
}

#[test]
fn an_expiring_certificate_causes_warnings_everywhere_until_it_is_replaced() {
    let files = Files::new();
    files.certify_until("a", 10);
    let agent = files.agent();
    agent.until("the log warns", || agent.log().contains("http.tls_certificate expires soon"));
    let left = || {
        let expires = agent.own_metric("tallyport_http_certificate_expiration_timestamp_seconds");
        (expires - clock::wall_time().as_secs() as f64) / 86_400.0
    };
    let doctor = || {
        let (url, ca) = (format!("https://{}", agent.http), files.text("a.crt"));
        let doctor =
            agent.cli(&["doctor", "--url", &url, "--ca", &ca, "--token-file", &files.text("tokens")]);
        doctor.out.lines().find(|line| line.contains("certificate")).unwrap_or_default().to_owned()
    };
    assert!((9.9..10.1).contains(&left()), "{}", left());
    assert!(doctor().starts_with("warning") && doctor().contains("expires in 9d"), "{}", doctor());
    files.certify_until("a", 90);
    assert_eq!(reload(&agent).0, 200);
    assert!((89.9..90.1).contains(&left()), "{}", left());
    assert!(doctor().starts_with("ok") && doctor().contains("expires in 89d"), "{}", doctor());
    // Clients reject the expired certificate, so only the admin socket still works.
    files.certify_until("a", -1);
    assert_eq!(reload(&agent).0, 200);
    agent.until("the log says so", || agent.log().contains("http.tls_certificate has expired"));
    assert!((-1.1..-0.9).contains(&left()), "{}", left());
}

#[test]
fn tokens_change_with_a_reload_one_before_the_other() {
    let files = Files::new();
    let agent = files.agent();
    let status =
        |token: &str| get(&agent, &files.client(&agent, "a").with_token(token.to_owned()), "/metrics").status;
    assert_eq!((status(TOKEN), status(OTHER)), (200, 401));
    files.write("tokens", &format!("{TOKEN}\n{OTHER}\n"));
    assert_eq!(reload(&agent).0, 200);
    assert_eq!((status(TOKEN), status(OTHER)), (200, 200));
    files.write("tokens", &format!("{OTHER}\n"));
    assert_eq!(reload(&agent).0, 200);
    assert_eq!((status(TOKEN), status(OTHER)), (401, 200));
    assert!(!agent.log().contains("everybody on this machine"), "{}", agent.log());
    std::fs::set_permissions(files.at("tokens"), std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(reload(&agent).0, 200);
    agent.until("it is warned of", || agent.log().contains("everybody on this machine may read this secret"));
}

#[test]
fn a_stream_ends_when_its_readers_token_is_taken_away_and_others_go_on() {
    let files = Files::new();
    files.write("tokens", &format!("{TOKEN}\n{OTHER}\n"));
    let agent = files.agent();
    let address = agent.reserve("c-1", "web.1");
    let client = files.client(&agent, "a");
    let open = |token: &str| {
        let client = client.clone().with_token(token.to_owned());
        agent.runtime().block_on(client.stream_lines("/v1/tasks/web.1/watch")).unwrap()
    };
    let (mut ends, mut goes_on) = (open(TOKEN), open(OTHER));
    let next = |stream: &mut LineStream| {
        let next = async { tokio::time::timeout(PATIENCE, stream.next()).await };
        agent.runtime().block_on(next).expect("nothing came").expect("it broke")
    };
    assert_eq!(next(&mut ends).unwrap(), ": watching");
    assert_eq!(next(&mut goes_on).unwrap(), ": watching");
    // A reload that leaves both tokens ends nothing.
    assert_eq!(reload(&agent).0, 200);
    address.send("hits:1|c");
    while !next(&mut ends).expect("it ended too early").starts_with("event: window") {}
    files.write("tokens", OTHER);
    assert_eq!(reload(&agent).0, 200);
    while next(&mut ends).is_some() {}
    address.send("hits:2|c");
    while !next(&mut goes_on).expect("it ended, too").contains(r#""value":2"#) {}
}

#[test]
fn tokens_and_tls_come_and_go_with_a_reload() {
    let files = Files::new();
    let whole = std::fs::read_to_string(files.at("agent.toml")).unwrap();
    files.write("agent.toml", "");
    let agent = files.agent();
    assert_eq!(agent.get("/v1/tasks").0, 200);
    files.write("agent.toml", &format!("http.tokens = {:?}\n", files.text("tokens")));
    assert_eq!(reload(&agent).0, 200);
    assert_eq!(agent.get("/v1/tasks").0, 401);
    files.write("agent.toml", &whole.replace("length = \"1s\"", ""));
    assert_eq!(reload(&agent).0, 200);
    assert_eq!(agent.get_raw("/v1/tasks").status, 400, "it speaks TLS now");
    files.write("agent.toml", "");
    assert_eq!(agent.admin("POST", "/v1/config/reload?force", &Value::Null).0, 200);
    assert_eq!(agent.get("/v1/tasks").0, 200);
}

/// The status of a request with this `host`.
fn status(agent: &Agent, host: &str) -> u16 {
    exchange(agent, &format!("GET /v1/tasks HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"))
}

/// The status of the answer to a head; 0 if the connection is closed without one.
fn exchange(agent: &Agent, head: &str) -> u16 {
    let mut stream = TcpStream::connect(agent.http).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // An agent that closes early resets the connection while the head is being sent.
    let _either_way = stream.write_all(head.as_bytes());
    let mut first = String::new();
    let _either_way = BufReader::new(stream).read_line(&mut first);
    first.split(' ').nth(1).map_or(0, |status| status.parse().unwrap())
}

#[test]
fn a_web_site_that_points_its_name_here_is_not_answered() {
    let files = Files::new();
    files.write("agent.toml", "");
    let agent = files.agent();
    let port = agent.http.port();
    for here in ["localhost", "127.0.0.1", "[::1]", "dev.localhost"] {
        assert_eq!(status(&agent, &format!("{here}:{port}")), 200, "{here}");
    }
    for stranger in ["evil.example", &format!("evil.example:{port}"), "10.0.0.1", ""] {
        assert_eq!(status(&agent, stranger), 421, "{stranger}");
    }
    let through = format!(
        "GET http://evil.example/v1/tasks HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n\r\n"
    );
    assert_eq!(exchange(&agent, &through), 421);
    files.write("agent.toml", "http.hosts = [\"node-1.example\"]");
    assert_eq!(reload(&agent).0, 200);
    assert_eq!((status(&agent, "node-1.example"), status(&agent, "evil.example")), (200, 421));
}

#[test]
fn each_limit_of_the_listener_is_a_setting_that_can_be_reached() {
    let settings = ["max_connections_per_client=3", "max_head=8KiB", "max_headers=9", "header_timeout=300ms"];
    let settings: Vec<String> =
        settings.iter().flat_map(|it| ["--set".to_owned(), format!("http.{it}")]).collect();
    let agent = Agent::with(&settings.iter().map(String::as_str).collect::<Vec<_>>());
    let with = |more: &str| {
        exchange(
            &agent,
            &format!("GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{more}\r\n"),
        )
    };
    assert_eq!((with(&"a: b\r\n".repeat(7)), with(&"a: b\r\n".repeat(8))), (200, 431));
    assert_eq!(
        (with(&format!("a: {}\r\n", "b".repeat(8000))), with(&format!("a: {}\r\n", "b".repeat(8300)))),
        (200, 431)
    );
    let mut slow = TcpStream::connect(agent.http).unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    slow.set_read_timeout(Some(Duration::from_secs(4))).unwrap();
    let mut rest = Vec::new();
    slow.read_to_end(&mut rest).expect("it is disconnected before the five seconds of the default");
    let keep: Vec<_> = (0..3).map(|_| TcpStream::connect(agent.http).unwrap()).collect();
    let refused = || {
        let own = agent.admin_text("/metrics");
        let line = own.lines().find_map(|line| {
            line.strip_prefix(
                "tallyport_http_connections_refused_total{listener=\"http\",reason=\"client\"} ",
            )
            .map(str::to_owned)
        });
        line.unwrap().parse::<u64>().unwrap()
    };
    let mut one_more = TcpStream::connect(agent.http).unwrap();
    one_more.set_read_timeout(Some(PATIENCE)).unwrap();
    let _closed_or_reset = one_more.read_to_end(&mut rest);
    assert_eq!(refused(), 1);
    drop(keep);
    agent.until("there is room again", || with("") == 200);
}

#[test]
fn curl_reads_with_the_certificate_and_the_token() {
    let Some(curl) = tools::program("curl", "scripts/setup containers") else { return };
    let files = Files::new();
    let agent = files.agent();
    files.write("header", &format!("authorization: Bearer {TOKEN}\n"));
    let url = format!("https://localhost:{}/metrics", agent.http.port());
    let asked = |more: &[&str]| {
        let mut command = Command::new(&curl);
        ran(command.args(["-sS", "--fail", "--cacert", &files.text("a.crt"), &url]).args(more))
    };
    let header = format!("@{}", files.text("header"));
    let shown = asked(&["-H", &header]);
    assert!(shown.code == 0 && shown.out.contains("tallyport_build"), "{shown:?}");
    let old = asked(&["-H", &header, "--tls-max", "1.2"]);
    assert!(old.code == 0 && old.out.contains("tallyport_build"), "{old:?}");
    assert_eq!(asked(&[]).code, 22, "401 is an error");
}
