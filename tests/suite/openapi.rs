//! Compares the OpenAPI document with the program, in both directions.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};

use serde_json::{Map, Value, json};

use crate::agent::{Address, Agent, PATIENCE};
use crate::nri::Runtime;
use crate::publish::{Backend, Reply};

const DOCUMENT: &str = include_str!("../../proto/openapi.json");
const ROUTES: &str = concat!(
    include_str!("../../src/api/routes.rs"),
    include_str!("../../src/api/routes/dcos.rs"),
    include_str!("../../src/api/routes/page.rs"),
);
const ERRORS: &str = include_str!("../../src/api/error.rs");

const LISTENERS: [&str; 2] = ["http", "admin"];

/// The maximum length of a body.
const BODY: usize = 1 << 20;

struct Document(Value);

/// One method of one path.
#[derive(Copy, Clone)]
struct Operation<'a> {
    path: &'a str,
    method: &'a str,
    value: &'a Value,
}

impl Document {
    fn read() -> Self {
        Self(serde_json::from_str(DOCUMENT).unwrap())
    }

    fn operations(&self) -> impl Iterator<Item = Operation<'_>> {
        self.object("/paths").iter().flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().iter();
            methods.map(move |(method, value)| Operation { path, method, value })
        })
    }

    /// The operation of a request.
    fn operation(&self, method: &str, target: &str) -> Operation<'_> {
        let path: Vec<&str> = target.split('?').next().unwrap().split('/').collect();
        let fits = |operation: &Operation<'_>| {
            let parts: Vec<&str> = operation.path.split('/').collect();
            operation.method.eq_ignore_ascii_case(method)
                && parts.len() == path.len()
                && parts.iter().zip(&path).all(|(part, is)| part.starts_with('{') || part == is)
        };
        self.operations().find(fits).unwrap_or_else(|| panic!("{method} {target} is not in the document"))
    }

    fn object(&self, pointer: &str) -> &Map<String, Value> {
        self.0.pointer(pointer).unwrap_or_else(|| panic!("{pointer} leads nowhere")).as_object().unwrap()
    }

    fn words(&self, schema: &str) -> Vec<&str> {
        words(&self.0["components"]["schemas"][schema]["enum"])
    }

    /// Resolves a reference.
    fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        pointer(value).map_or(value, |pointer| self.0.pointer(pointer).unwrap())
    }

    fn parameters<'a>(&'a self, operation: Operation<'a>) -> impl Iterator<Item = &'a Value> {
        let parameters = operation.value["parameters"].as_array();
        parameters.into_iter().flatten().map(|parameter| self.resolved(parameter))
    }

    /// The codes of errors with this status.
    fn codes(&self, operation: Operation<'_>, status: &str) -> BTreeSet<String> {
        let answer = self.resolved(&operation.value["responses"][status]);
        let code = &answer["content"]["application/json"]["schema"]["properties"]["code"]["enum"];
        words(code).into_iter().map(str::to_owned).collect()
    }

    fn takes_a_query(&self, operation: Operation<'_>) -> bool {
        self.codes(operation, "400").contains("unknown_parameter")
    }

    /// A path with the examples of its parameters.
    fn example_path(&self, operation: Operation<'_>) -> String {
        let of_path = self.parameters(operation).filter(|parameter| parameter["in"] == "path");
        of_path.fold(operation.path.to_owned(), |path, parameter| {
            let name = format!("{{{}}}", parameter["name"].as_str().unwrap());
            path.replace(&name, parameter["example"].as_str().unwrap())
        })
    }

    /// Validates a value with a schema. Returns errors, and the keys of components that the value has.
    fn evaluate(&self, schema: &Value, value: &Value) -> (Vec<String>, BTreeSet<String>) {
        let schema = json!({"allOf": [schema], "components": self.0["components"]});
        let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
        let evaluation = validator.evaluate(value);
        let error =
            |entry: jsonschema::ErrorEntry<'_>| format!("{}: {}", entry.instance_location, entry.error);
        // Every key has a description, so validation yields one for every key that a value has.
        let keys = evaluation.iter_annotations().map(|entry| entry.schema_location.to_owned());
        (evaluation.iter_errors().map(error).collect(), keys.collect())
    }
}

impl Operation<'_> {
    fn id(&self) -> &str {
        self.value["operationId"].as_str().unwrap()
    }

    fn listeners(&self) -> Vec<&str> {
        words(&self.value["x-listener"])
    }
}

/// The target of a reference.
fn pointer(value: &Value) -> Option<&str> {
    value["$ref"].as_str().map(|reference| reference.strip_prefix('#').unwrap())
}

fn words(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Every value in a document and where it is.
fn walk<'a>(value: &'a Value, at: &str, visit: &mut impl FnMut(&str, &'a Value)) {
    visit(at, value);
    let children: Vec<(String, &Value)> = match value {
        Value::Object(map) => {
            map.iter().map(|(key, child)| (key.replace('~', "~0").replace('/', "~1"), child)).collect()
        }
        Value::Array(items) => {
            items.iter().enumerate().map(|(index, child)| (index.to_string(), child)).collect()
        }
        _ => Vec::new(),
    };
    for (key, child) in children {
        walk(child, &format!("{at}/{key}"), visit);
    }
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// An answer whose body may still be coming.
struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: BufReader<Box<dyn Stream>>,
}

/// Sends an HTTP/1.0 request, so that the body is not chunked and ends with the connection.
fn exchange(agent: &Agent, listener: &str, request: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut stream: Box<dyn Stream> = if listener == "http" {
        let stream = TcpStream::connect(agent.http).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Box::new(stream)
    } else {
        let stream = UnixStream::connect(agent.admin_socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Box::new(stream)
    };
    let mut head = format!("{request} HTTP/1.0\r\ncontent-length: {}\r\n", body.len());
    head.extend(headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")));
    stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut body = BufReader::new(stream);
    let mut lines = body.by_ref().lines().map(Result::unwrap).take_while(|line| !line.is_empty());
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let pair =
        |line: String| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    let headers = lines.filter_map(pair).collect();
    Answer { status, headers, body }
}

impl Answer {
    fn whole(mut self) -> Vec<u8> {
        let mut body = Vec::new();
        self.body.read_to_end(&mut body).unwrap();
        if self.headers.get("content-encoding").is_none_or(|encoding| encoding != "gzip") {
            return body;
        }
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(body.as_slice()).read_to_end(&mut plain).unwrap();
        plain
    }

    fn error(self) -> Value {
        serde_json::from_slice(&self.whole()).unwrap_or_default()
    }
}

/// A running agent whose answers are all compared with the document.
struct Contract {
    agent: Agent,
    document: Document,
    /// Answers, error codes and keys that have been seen.
    seen: RefCell<BTreeSet<String>>,
}

impl Contract {
    fn with(agent: Agent) -> Self {
        Self { agent, document: Document::read(), seen: RefCell::default() }
    }

    /// Sends a request, and checks the answer.
    fn ask(&self, listener: &str, request: &str, body: &Value) -> (u16, Value) {
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let (status, answer) = self.ask_with(listener, request, &[], &bytes);
        if status < 300 && !body.is_null() {
            let (method, target) = request.split_once(' ').unwrap();
            let operation = self.document.operation(method, target);
            self.valid(
                request,
                &operation.value["requestBody"]["content"]["application/json"]["schema"],
                body,
            );
        }
        (status, answer)
    }

    fn ask_with(&self, listener: &str, request: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, Value) {
        let answer = exchange(&self.agent, listener, request, headers, body);
        let status = answer.status;
        let content = self.promised(request, &answer);
        let body = answer.whole();
        let value = serde_json::from_slice(&body).unwrap_or_default();
        match content {
            None => assert!(body.is_empty(), "{request}: {status} has a body"),
            Some(content) if content["schema"]["type"] != "string" => {
                self.valid(request, &content["schema"], &value);
            }
            Some(content) if content["schema"]["format"] == "binary" => {
                assert!(!body.is_empty(), "{request}");
            }
            Some(content) => {
                let lines = std::str::from_utf8(&body).unwrap().lines();
                let lines = lines.filter(|_| content["x-line"].is_object());
                lines.for_each(|line| {
                    self.valid(request, &content["x-line"], &serde_json::from_str(line).unwrap());
                });
            }
        }
        self.seen.borrow_mut().extend(value["code"].as_str().map(str::to_owned));
        (status, value)
    }

    /// Checks status, headers and media type of an answer. Returns the documented schema of its body.
    fn promised(&self, request: &str, answer: &Answer) -> Option<&Value> {
        let (method, target) = request.split_once(' ').unwrap();
        let operation = self.document.operation(method, target);
        let promised = self.document.resolved(&operation.value["responses"][answer.status.to_string()]);
        assert!(promised.is_object(), "{request} answers {}", answer.status);
        for (name, header) in promised["headers"].as_object().into_iter().flatten() {
            match answer.headers.get(name) {
                Some(value) => self.valid(name, &header["schema"], &json!(value)),
                None => assert_eq!(header["required"], false, "{request}: {name}"),
            }
        }
        let media = answer.headers.get("content-type").map_or("", String::as_str);
        self.seen.borrow_mut().insert(format!("{} {} {media}", operation.id(), answer.status));
        let content = promised["content"].as_object();
        content.map(|content| content.get(media).unwrap_or_else(|| panic!("{request} answers {media:?}")))
    }

    fn valid(&self, what: &str, schema: &Value, value: &Value) {
        let (errors, keys) = self.document.evaluate(schema, value);
        assert!(errors.is_empty(), "{what}: {errors:#?}\n{value:#}");
        self.seen.borrow_mut().extend(keys);
    }

    /// Sends a request to both listeners.
    fn get(&self, target: &str) -> Value {
        let [(status, _), (_, answer)] =
            LISTENERS.map(|listener| self.ask(listener, &format!("GET {target}"), &Value::Null));
        assert!(status < 300, "GET {target}: {status}");
        answer
    }

    fn change(&self, request: &str, body: &Value, status: u16) -> Value {
        let (answered, answer) = self.ask("admin", request, body);
        assert_eq!(answered, status, "{request}: {answer}");
        answer
    }

    fn refused(&self, request: &str, body: &Value, status: u16, code: &str) {
        let answer = self.change(request, body, status);
        assert_eq!(answer["code"], code, "{request}: {answer}");
    }

    /// Documented items of a kind that no answer has had.
    fn unseen(&self, promised: impl IntoIterator<Item = String>) -> Vec<String> {
        let seen = self.seen.borrow();
        promised.into_iter().filter(|promised| !seen.contains(promised)).collect()
    }
}

/// Method, path without the names of parameters, and whether the query is read or refused, of each route in the source.
fn routes() -> BTreeSet<(String, String, bool)> {
    let routes = ROUTES.split("at!(").skip(1).filter(|text| !text.starts_with('@'));
    let route = |text: &str| {
        let (parts, rest) = text.split_once(')').unwrap();
        let mut parts = parts.split(" / ").map(|part| part.trim_matches('"'));
        let method = parts.next().unwrap().to_owned();
        let parts: Vec<_> = parts.map(|part| if part == "_" { "{}" } else { part }).collect();
        (method, format!("/{}", parts.join("/")), rest.split(';').next().unwrap().contains("query())"))
    };
    routes.map(route).collect()
}

#[test]
fn the_document_has_every_route_of_the_program_and_no_other() {
    let document = Document::read();
    let operations = document.operations().map(|operation| {
        let path = operation.path.split('/').map(|part| if part.starts_with('{') { "{}" } else { part });
        let path = path.collect::<Vec<_>>().join("/");
        (operation.method.to_owned(), path, document.takes_a_query(operation))
    });
    let operations: BTreeSet<_> = operations.collect();
    assert!(operations.len() > 25, "{operations:?}");
    assert_eq!(operations, routes());
}

#[test]
fn the_document_is_tidy() {
    let document = Document::read();
    let pretty = serde_json::to_string_pretty(&document.0).unwrap();
    assert!(format!("{pretty}\n") == DOCUMENT, "the document is not indented as JSON is by two spaces");
    let mut used = BTreeSet::new();
    walk(&document.0, "", &mut |at, value| {
        if let Some(pointer) = pointer(value) {
            assert!(document.0.pointer(pointer).is_some(), "{at}: {pointer} leads nowhere");
            used.insert(pointer);
        }
    });
    for kind in ["schemas", "parameters", "responses"] {
        for name in document.object(&format!("/components/{kind}")).keys() {
            assert!(
                used.contains(format!("/components/{kind}/{name}").as_str()),
                "nothing uses {kind}/{name}"
            );
        }
    }
}

#[test]
fn every_operation_says_what_it_is_and_what_it_answers() {
    let document = Document::read();
    let tags: Vec<&Value> = document.0["tags"].as_array().unwrap().iter().map(|tag| &tag["name"]).collect();
    let mut ids = BTreeSet::new();
    for operation in document.operations() {
        let what = format!("{} {}", operation.method, operation.path);
        assert!(ids.insert(operation.id().to_owned()), "{what}: its operationId is another's");
        let summary = operation.value["summary"].as_str().unwrap();
        assert!(summary.ends_with('.') && !summary.contains(". "), "{what}: {summary}");
        assert!(tags.contains(&&operation.value["tags"][0]), "{what}");
        let listeners = operation.listeners();
        assert!(listeners.ends_with(&["admin"]) && LISTENERS.ends_with(&listeners), "{what}: {listeners:?}");
        let answers = operation.value["responses"].as_object().unwrap();
        assert!(answers.keys().any(|status| status.starts_with('2')), "{what}");
        assert!(
            answers.values().all(|answer| document.resolved(answer)["description"].is_string()),
            "{what}"
        );
        let named = |parameter: &&Value| parameter["in"] == "path" && parameter["required"] == true;
        let named: Vec<_> =
            document.parameters(operation).filter(named).map(|p| p["name"].as_str().unwrap()).collect();
        let parts = operation.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        assert_eq!(parts.collect::<Vec<_>>(), named, "{what}");
    }
}

#[test]
fn every_schema_is_one_and_examples_fit_theirs() {
    let document = Document::read();
    for (name, schema) in document.object("/components/schemas") {
        assert!(jsonschema::meta::is_valid(schema), "{name}");
        for example in schema["examples"].as_array().into_iter().flatten() {
            assert_eq!(document.evaluate(schema, example).0, Vec::<String>::new(), "{name}");
        }
        let says_something = |schema: &Value| schema["description"].is_string();
        let keys = schema["properties"].as_object().into_iter().flat_map(Map::values);
        assert!(keys.chain([schema]).all(says_something), "{name}");
    }
    for (name, parameter) in document.object("/components/parameters") {
        assert_eq!(
            document.evaluate(&parameter["schema"], &parameter["example"]).0,
            Vec::<String>::new(),
            "{name}"
        );
    }
}

#[test]
fn every_object_of_an_answer_is_closed() {
    let document = Document::read();
    let mut reached = Vec::new();
    let mut ahead: Vec<&Value> =
        document.operations().map(|operation| &operation.value["responses"]).collect();
    while let Some(next) = ahead.pop() {
        walk(next, "", &mut |at, value| {
            let closed = value["additionalProperties"] == false || value["additionalProperties"].is_object();
            // Except for the document itself, which has no schema.
            let excused = value["required"][0] == "openapi";
            assert!(value["type"] != "object" || closed || excused, "{at}: {value:#}");
            let pointer = pointer(value).filter(|pointer| !reached.contains(pointer));
            reached.extend(pointer);
            ahead.extend(pointer.and_then(|pointer| document.0.pointer(pointer)));
        });
    }
    assert!(reached.len() > 50, "{}", reached.len());
}

#[test]
fn the_words_of_the_program_are_those_of_the_document() {
    use tallyport::aggregate::Dropped;
    use tallyport::containers::LifecycleState;
    use tallyport::model::MetricType;
    use tallyport::statsd::{CheckStatus, Rejected};
    let document = Document::read();
    assert_eq!(document.words("State"), LifecycleState::ALL.map(LifecycleState::as_str));
    assert_eq!(document.words("MetricType"), MetricType::ALL.map(MetricType::as_str));
    assert_eq!(document.words("RejectedCode"), Rejected::ALL.map(Rejected::as_str));
    let statuses: Vec<_> = (0..4).map(|n| CheckStatus::from_number(n).unwrap().as_str()).collect();
    assert_eq!(document.words("CheckStatus"), statuses);
    for (schema, datagrams) in [("DatagramDropReason", true), ("ValueDropReason", false)] {
        let reasons = Dropped::ALL.into_iter().filter(|reason| reason.counts_datagrams() == datagrams);
        assert_eq!(document.words(schema), reasons.map(Dropped::as_str).collect::<Vec<_>>());
    }
}

/// Status and code of every error in the source.
fn errors_of_the_program() -> BTreeSet<(String, String)> {
    let text: String = ERRORS.split_whitespace().collect();
    let error = |text: &str| {
        let (status, rest) = text.split_once(",\"")?;
        let number = status.len() == 3 && status.parse::<u16>().is_ok();
        number.then(|| (status.to_owned(), rest.split('"').next().unwrap().to_owned()))
    };
    text.split('(').filter_map(error).collect()
}

#[test]
fn every_error_of_the_program_is_in_the_document_with_its_status() {
    let document = Document::read();
    let mut errors = BTreeSet::new();
    let otherwise = &document.0["x-otherwise"];
    let otherwise = Operation { path: "", method: "", value: &json!({"responses": otherwise}) };
    for operation in document.operations().chain([otherwise]) {
        for status in operation.value["responses"].as_object().unwrap().keys() {
            errors.extend(document.codes(operation, status).into_iter().map(|code| (status.clone(), code)));
        }
    }
    let mut program = errors_of_the_program();
    // Answered with 204, which has no body for a code.
    assert!(program.remove(&("409".to_owned(), "opted_out".to_owned())));
    // Answered on the descriptor socket, which does not use HTTP.
    assert!(program.remove(&("400".to_owned(), "bad_descriptors".to_owned())));
    assert_eq!(errors, program);
    let codes: BTreeSet<_> = errors.iter().map(|(_, code)| code.as_str()).collect();
    assert_eq!(document.words("ErrorCode"), codes.into_iter().collect::<Vec<_>>());
}

#[test]
fn the_agent_serves_the_document_as_it_is() {
    let agent = Agent::start();
    for listener in LISTENERS {
        let answer = exchange(&agent, listener, "GET /v1/openapi.json", &[], b"");
        assert_eq!(answer.headers["content-type"], "application/json");
        assert!(answer.whole() == DOCUMENT.as_bytes(), "{listener} serves another document");
    }
}

#[test]
fn every_route_is_served_where_the_document_says_and_nowhere_else() {
    let contract = Contract::with(Agent::start());
    let document = &contract.document;
    for (listener, operation) in LISTENERS.iter().flat_map(|l| document.operations().map(move |o| (l, o))) {
        let path = document.example_path(operation);
        let asked = |method: &str| exchange(&contract.agent, listener, &format!("{method} {path}"), &[], b"");
        let served = operation.listeners().contains(listener);
        let otherwise = |status: &str, answer: Answer| {
            assert_eq!(answer.status.to_string(), status, "{listener} {path}");
            let schema = document.resolved(&document.0["x-otherwise"][status]);
            let allowed = answer.headers.get("allow").cloned().unwrap_or_default();
            assert_eq!(
                allowed.contains(&operation.method.to_uppercase()),
                status == "405",
                "{listener} {path}"
            );
            let error = answer.error();
            contract.valid(&path, &schema["content"]["application/json"]["schema"], &error);
        };
        let answer = asked(&operation.method.to_uppercase());
        if served {
            let status = answer.status;
            let known = operation.value["responses"][status.to_string()].is_object();
            assert!(known, "{listener} {path}: {status}");
            if operation.method == "get" {
                let head = asked("HEAD");
                assert_eq!(head.status, status, "{listener} {path}");
                assert!(head.whole().is_empty(), "{listener} {path}");
            }
            // A stream does not end.
            if status >= 400 {
                assert_ne!(answer.error()["code"], "unknown_route", "{listener} {path}");
            }
        } else {
            otherwise("404", answer);
        }
        otherwise(if served { "405" } else { "404" }, asked("PATCH"));
    }
}

#[test]
fn a_client_without_access_is_answered_as_the_document_says() {
    let directory = tempfile::tempdir().unwrap();
    let tokens = directory.path().join("tokens");
    std::fs::write(&tokens, "0123456789abcdef\n").unwrap();
    let contract = Contract::with(Agent::with(&["--set", &format!("http.tokens={}", tokens.display())]));
    for (headers, status, code) in [
        (vec![], "401", "no_token"),
        (vec![("authorization", "Bearer another-token-than-that")], "401", "unknown_token"),
        (vec![("host", "evil.example")], "421", "misdirected"),
    ] {
        let answer = exchange(&contract.agent, "http", "GET /v1/tasks", &headers, b"");
        assert_eq!(answer.status.to_string(), status);
        let schema = contract.document.resolved(&contract.document.0["x-otherwise"][status]);
        let challenged = answer.headers.get("www-authenticate").is_some_and(|it| it.starts_with("Bearer"));
        assert_eq!(challenged, schema["headers"]["WWW-Authenticate"]["required"] == true, "{code}");
        let error = answer.error();
        assert_eq!(error["code"], code);
        contract.valid(code, &schema["content"]["application/json"]["schema"], &error);
    }
}

/// Settings that a reload changes, and one that it cannot.
const SETTINGS: &str = "node = \"n1\"\nlimits.name_bytes = \"64B\"\n";

/// Every kind of valid and invalid line.
fn send_everything(address: &Address) {
    address
        .send("hits:3|c|@0.1|#route:/pay\nactive:-1|c\nlevel:20|g\nlevel:+1.5|g\nusers:ann|s\nusers:bob|s");
    address.send("latency:7:2:91:11|ms|#route:/pay\nsize:10|h\nspread:0.5:0.7|d|@0.3");
    // A range wide enough that the record has `percentile_error`.
    let decades = (-35..35).fold(String::new(), |text, exponent| text + &format!(":1e{exponent}"));
    address.send(format!("wide{decades}|h"));
    address.send("page.load:1|c\npage_load:1|c");
    address.send("_sc|db|2|d:1767225600|h:db1|#env:dev|m:down\n_sc|cache|0");
    address.send("_e{6,10}:deploy|all\\nis up|d:1767225600|h:db1|k:release|p:low|s:ci|t:success|#env:dev\n_e{4,0}:bare|");
    address
        .send("bad\nbad:x|c\n:1|c\nlate:1|c|T1000000000\nahead:1|c|T9999999999\ntask_id:1|c|#task_id:forged");
    address.send(format!("{}:1|c", "long".repeat(20)));
}

/// An agent with a task of two live containers, one of them attached, and one each that is finished and silent.
fn populated() -> Contract {
    let directory = tempfile::tempdir().unwrap();
    let settings = directory.path().join("agent.toml");
    std::fs::write(&settings, SETTINGS).unwrap();
    let socket = directory.path().join("nri.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let nri = format!("nri.socket={}", socket.display());
    let flags = ["--window", "1s", "--set", "nri.enabled=true", "--set", &nri, "--config"];
    let agent = Agent::in_directory(directory, &[&flags[..], &[settings.to_str().unwrap()]].concat());
    let contract = Contract::with(agent);
    // A pod's container without a socket, of a runtime that then disconnects.
    let mut runtime = Runtime::accept(&listener);
    runtime.takes_the_plugin();
    runtime.starts_without_a_socket("c-mute");
    drop(runtime);
    let mute = json!({"container_id": "c-mute", "task_id": "shop_web-0_u-1", "network": {"mode": "new"}});
    assert_eq!(contract.change("POST /v1/containers", &mute, 200)["state"], "mute");
    contract.change("GET /v1/containers/c-mute", &Value::Null, 200);
    let state = || contract.agent.get("/v1/node").1["nri"]["state"].clone();
    contract.agent.until("it waits for the next one", || state() == "registering");
    let labels = json!({"team": "shop", "mesos_id": "m", "cluster_id": "c", "executor_id": "e", "framework_name": "marathon",
        "framework_id": "f", "framework_role": "r", "framework_principal": "p"});
    for (container, task) in [("c-42", "web.1"), ("c-43", "web.1"), ("c-44", "batch"), ("c-45", "idle")] {
        let body = json!({"container_id": container, "task_id": task, "labels": labels, "network": {"mode": "host"},
            "pid": null, "ttl": null, "options": {"gauge_sign": "delta", "timer_unit": "ms", "port": null}, "bundle": "/b", "sandbox_id": "s", "pod_uid": "u",
            "runtime_handler": "runc", "image": "shop/web:7", "colour": "ignored"});
        let address = Address::of(&contract.change("POST /v1/containers", &body, 201));
        if task != "idle" {
            send_everything(&address);
        }
        contract.change("POST /v1/containers", &body, 200);
    }
    let mounted = json!({"container_id": "c-unix", "labels": {"tallyport.unix-socket": "true"}, "ttl": null});
    contract.change("POST /v1/containers", &mounted, 201);
    contract.change("GET /v1/containers/c-unix", &Value::Null, 200);
    let pid = i32::try_from(std::process::id()).unwrap();
    let process = json!({"pid": pid, "start_ticks": tallyport::net::process::start_ticks(pid).unwrap()});
    let attached = contract.change("POST /v1/containers/c-42/attach", &process, 200);
    assert_eq!(attached["attached"], true);
    contract.change("DELETE /v1/containers/c-44", &Value::Null, 202);
    let unborn = json!({"container_id": "unborn", "network": {"mode": "new"}, "ttl": null});
    assert_eq!(contract.change("POST /v1/containers", &unborn, 201)["state"], "reserved");
    let records = |query: &str| contract.agent.metrics("web.1", query);
    contract.agent.until("every container has a carried gauge", || {
        let carried = |record: &Value| record["agg"]["carried"] == true;
        ["c-42", "c-43"].iter().all(|id| records(&format!("?window=all&container={id}")).iter().any(carried))
    });
    contract
}

fn read_everything(contract: &Contract) {
    for target in [
        "/v1/tasks",
        "/v1/tasks?task=w*&container=c-42&label=team=shop",
        "/v1/tasks/web.1",
        "/v1/tasks/batch",
        "/v1/tasks/idle",
        "/v1/tasks/web.1/metrics?window=last",
        "/v1/tasks/web.1/metrics?window=all",
        "/v1/tasks/batch/metrics",
        "/v1/tasks/web.1/metrics?window=all&merge",
        "/v1/tasks/web.1/metrics?step=1m",
        "/v1/tasks/web.1/metrics?window=all&hdr",
        "/v1/tasks/web.1/metrics?window=all&merge&container=c-42&tag=route",
        "/v1/tasks/idle/metrics",
        "/v1/tasks/web.1/names",
        "/v1/tasks/web.1/names?name=request.*",
        "/v1/tasks/web.1/names?by=route&stat=p95",
        "/v1/tasks/web.1/names?compare",
        "/v1/tasks/web.1/events",
        "/v1/tasks/web.1/checks",
        "/v1/tasks/batch/events",
        "/v1/metrics",
        "/v1/metrics?format=ndjson",
        "/v1/metrics?name=hits",
        "/v1/metrics?hdr=1",
        "/metrics",
        "/metrics/tasks?naming=graphite&identity=low&created&shard=0/1",
        "/v1/sd",
        "/v1/accounting",
        "/v1/accounting?task=batch",
        "/v1/node",
        "/v1/openapi.json",
        "/",
        "/health",
        "/ready",
        "/v0/ping",
        "/v0/node",
        "/v0/containers",
        "/v0/containers/c-42",
        "/v0/containers/c-44",
        "/v0/containers/c-42/app",
        "/v0/containers/c-44/app/hits",
        "/v0/containers/c-45/app",
        "/v0/containers/c-42/app/none",
    ] {
        contract.get(target);
    }
    let cursor = contract.get("/v1/node")["cursor"].clone();
    let cursor = cursor.as_str().unwrap();
    contract.get(&format!("/v1/metrics?since={cursor}"));
    let first = format!("{}-0", cursor.split_once('-').unwrap().0);
    let everything = contract.get(&format!("/v1/metrics?since={first}"));
    assert!(everything["metrics"].as_array().unwrap().len() > 5, "{everything}");
    let accept = [("accept", "application/openmetrics-text"), ("accept-encoding", "gzip")];
    contract.ask_with("http", "GET /metrics", &accept, b"");
    let tag = exchange(&contract.agent, "http", "GET /", &[], b"").headers["etag"].clone();
    contract.ask_with("http", "GET /", &[("if-none-match", &tag)], b"");
    contract.ask_with("http", "GET /metrics/tasks", &accept, b"");
    let messages =
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
    contract.ask_with("http", "GET /metrics/tasks", &[("accept", messages)], b"");
    contract.ask_with("http", "GET /v1/metrics", &accept, b"");
    for target in [
        "/v1/containers",
        "/v1/containers?task=b*",
        "/v1/containers/c-42",
        "/v1/containers/c-44",
        "/v1/config",
    ] {
        contract.change(&format!("GET {target}"), &Value::Null, 200);
    }
}

fn read_open_windows(contract: &Contract) {
    let own = json!({"mode": "netns", "path": "/proc/self/ns/net"});
    let address =
        contract.change("POST /v1/containers", &json!({"container_id": "c-46", "network": own}), 201);
    let address = Address::of(&address);
    contract.agent.until("an open window is shown", || {
        address.send("a:1|c\nt:1|ms");
        let shown = contract.get("/v1/tasks/c-46/metrics?window=open");
        let merged = contract.get("/v1/tasks/c-46/metrics?merge");
        shown["metrics"].as_array().is_some_and(|records| records.len() == 2)
            && merged["metrics"][0]["merged"].is_u64()
    });
}

/// Reads a stream until an event of each kind has arrived, and checks it.
fn read_streams(contract: &Contract) {
    let address = contract.change("POST /container", &json!({"container_id": "m-1"}), 201);
    let agent = &contract.agent;
    let watch = exchange(agent, "http", "GET /v1/tasks/m-1/watch", &[("last-event-id", "1-1")], b"");
    let tail = exchange(agent, "admin", "GET /v1/tasks/m-1/tail", &[], b"");
    let events = &contract.promised("GET /v1/tasks/m-1/watch", &watch).unwrap()["x-events"];
    let line = &contract.promised("GET /v1/tasks/m-1/tail", &tail).unwrap()["x-line"];
    Address::of(&address).send("a:1|c\nbad");
    let tailed: Vec<Value> =
        tail.body.lines().take(2).map(|text| serde_json::from_str(&text.unwrap()).unwrap()).collect();
    tailed.iter().for_each(|document| contract.valid("tail", line, document));
    assert_eq!((&tailed[0]["line"], &tailed[1]["rejected"]), (&json!("a:1|c"), &json!("missing_type")));
    contract.change("DELETE /container/m-1", &Value::Null, 202);
    let kinds = read_events(contract, events, watch, usize::MAX);
    let known: BTreeSet<String> = events.as_object().unwrap().keys().cloned().collect();
    assert_eq!(kinds, known);
    let overview = exchange(agent, "http", "GET /v1/watch?recent", &[], b"");
    let events = &contract.promised("GET /v1/watch", &overview).unwrap()["x-events"];
    let kinds = read_events(contract, events, overview, 3);
    assert_eq!(kinds, events.as_object().unwrap().keys().cloned().collect());
}

/// Checks the first events of a stream, and returns their kinds.
fn read_events(contract: &Contract, events: &Value, stream: Answer, first: usize) -> BTreeSet<String> {
    let mut kinds = BTreeSet::new();
    let mut kind = String::new();
    let mut left = first;
    for text in stream.body.lines().map(Result::unwrap) {
        if let Some(name) = text.strip_prefix("event: ") {
            name.clone_into(&mut kind);
        } else if let Some(data) = text.strip_prefix("data: ") {
            contract.valid(&kind, &events[&kind], &serde_json::from_str(data).unwrap());
            kinds.insert(kind.clone());
            left -= 1;
            if left == 0 {
                break;
            }
        }
    }
    kinds
}

fn speak_the_dcos_dialect(contract: &Contract) {
    let reserved = contract.change(
        "POST /container",
        &json!({"container_id": "m-2", "statsd_host": null, "statsd_port": 0}),
        201,
    );
    assert_eq!(contract.change("GET /container/m-2", &Value::Null, 200), reserved);
    contract.change("GET /containers", &Value::Null, 200);
    let taken = json!({"container_id": "m-3", "statsd_host": reserved["statsd_host"], "statsd_port": reserved["statsd_port"]});
    contract.refused("POST /container", &taken, 409, "address_taken");
    contract.refused("POST /container", &json!({"container_id": "a/b"}), 400, "bad_id");
    contract.refused("POST /container", &json!({}), 400, "bad_body");
    contract.change("DELETE /container/m-2", &Value::Null, 202);
    for request in ["GET /container/nope", "DELETE /container/nope"] {
        contract.refused(request, &Value::Null, 404, "unknown_container");
        contract.refused(&request.replace("nope", "a%2Fb"), &Value::Null, 400, "bad_id");
    }
}

fn ask_for_what_cannot_be(contract: &Contract) {
    for (target, status, code) in [
        ("/v1/tasks/nope", 404, "unknown_task"),
        ("/v1/tasks/web.2/metrics", 404, "unknown_task"),
        ("/v1/tasks/nope/names", 404, "unknown_task"),
        ("/v1/tasks/nope/events", 404, "unknown_task"),
        ("/v1/tasks/nope/checks", 404, "unknown_task"),
        ("/v1/tasks/nope/watch", 404, "unknown_task"),
        ("/v1/tasks/nope/tail", 404, "unknown_task"),
        ("/v1/tasks/web.1/metrics?since=soon", 400, "bad_parameter"),
        ("/v1/tasks/web.1/metrics?at=2h", 400, "archive_off"),
        ("/v1/metrics?since=1", 400, "bad_parameter"),
        ("/v1/metrics?hdr=v2", 400, "bad_parameter"),
        ("/metrics/tasks?shard=4/4", 400, "bad_parameter"),
        ("/v1/metrics?since=1-1", 410, "expired_cursor"),
        ("/v1/containers/c-4", 404, "unknown_container"),
        ("/v1/containers/a%2Fb", 400, "bad_id"),
    ] {
        contract.refused(&format!("GET {target}"), &Value::Null, status, code);
    }
    let (_, nearest) = contract.ask("http", "GET /v1/tasks/web.2", &Value::Null);
    assert_eq!(nearest["nearest"], json!(["web.1"]));
    for operation in
        contract.document.operations().filter(|operation| contract.document.takes_a_query(*operation))
    {
        let path = contract.document.example_path(operation);
        let target = format!("{} {path}?colour=blue", operation.method.to_uppercase());
        contract.refused(&target, &Value::Null, 400, "unknown_parameter");
    }
}

fn call_wrongly(contract: &Contract) {
    for (call, body, status, code) in [
        ("containers", json!({"container_id": "c", "pid": 0}), 400, "no_such_process"),
        ("containers", json!({"container_id": "c", "pid": i32::MAX}), 400, "no_such_process"),
        ("containers", json!({"container_id": "c", "ttl": "soon"}), 400, "bad_parameter"),
        ("containers", json!({"container_id": ""}), 400, "bad_id"),
        (
            "containers",
            json!({"container_id": "c", "network": {"mode": "netns", "path": "/"}}),
            400,
            "not_a_namespace",
        ),
        ("containers", json!({"task_id": "web.1"}), 400, "bad_body"),
        ("containers", json!({"container_id": "c-42", "task_id": "web.9"}), 409, "conflict"),
        ("containers/c-42/attach", json!({"pid": 1}), 409, "conflict"),
        ("containers/c-43/attach", json!({"pid": 0}), 400, "no_such_process"),
        ("containers/c-43/attach", json!({}), 400, "bad_body"),
        (
            "containers/c-43/attach",
            json!({"pid": std::process::id(), "start_ticks": 7}),
            409,
            "another_process",
        ),
        ("containers/unborn/attach", json!({"pid": std::process::id()}), 409, "another_process"),
        ("containers/c-44/attach", json!({"pid": 1}), 409, "ended"),
        ("containers/nope/attach", json!({"pid": 1}), 404, "unknown_container"),
        ("containers/../attach", json!({"pid": 1}), 400, "bad_id"),
    ] {
        contract.refused(&format!("POST /v1/{call}"), &body, status, code);
    }
    let opted_out = json!({"container_id": "c", "labels": {"tallyport.enabled": "false"}});
    contract.change("POST /v1/containers", &opted_out, 204);
    contract.refused("DELETE /v1/containers/nope", &Value::Null, 404, "unknown_container");
    contract.refused("DELETE /v1/containers/a%2Fb", &Value::Null, 400, "bad_id");
    for request in ["POST /v1/containers", "POST /v1/containers/c-42/attach", "POST /container"] {
        let (status, error) = contract.ask_with("admin", request, &[], &vec![b' '; BODY + 1]);
        assert_eq!((status, &error["code"]), (413, &json!("body_too_long")), "{request}");
    }
}

/// Publishers of the agent: one whose backend refuses a series, then everything, and one that writes a file.
fn publish(contract: &Contract) {
    let refused = |line: &String| line.starts_with("hits");
    let backend = Backend::new(move |request| match request.lines().iter().any(refused) {
        true => Reply::Status(400, "", "partial write"),
        false => Reply::Status(204, "", ""),
    });
    let settings = contract.agent.admin_socket().with_file_name("agent.toml");
    let archive = settings.with_file_name("records");
    let publishers = format!(
        "[publish.influx]\ntype = \"influxdb\"\nurl = \"http://{}\"\n[publish.archive]\ntype = \"file\"\npath = \"{}\"\n",
        backend.address,
        archive.display()
    );
    std::fs::write(&settings, format!("{SETTINGS}{publishers}")).unwrap();
    contract.change("POST /v1/config/reload", &Value::Null, 200);
    let address = contract.change("POST /v1/containers", &json!({"container_id": "c-47", "ttl": null}), 201);
    let address = Address::of(&address);
    contract.agent.until("a record is refused and others are not", || {
        address.send("hits:1|c\nothers:1|c");
        let influx = contract.get("/v1/publishers")[1].clone();
        influx["dead_letters"].as_u64() > Some(0) && influx["last_delivery"].is_string()
    });
    contract.change("GET /v1/publishers/influx/dead", &Value::Null, 200);
    backend.follow(|_| Reply::Status(401, "", "who are you"));
    contract.change("POST /v1/publishers/influx/check", &Value::Null, 200);
    contract.change("POST /v1/publishers/influx/replay?since=1s", &Value::Null, 200);
    contract.change("POST /v1/publishers/influx/replay", &Value::Null, 200);
    contract.change("POST /v1/publishers/influx/verify?since=1h", &Value::Null, 200);
    let verified = || contract.agent.admin("POST", "/v1/publishers/archive/verify", &Value::Null).1;
    contract.agent.until("there are rounds to compare", || verified()["outcome"] == "ok");
    std::fs::write(&archive, "").unwrap();
    contract.change("POST /v1/publishers/archive/verify?since=1h&part=0&parts=1", &Value::Null, 200);
    contract.agent.until("it is held", || contract.get("/v1/publishers")[1]["next_attempt"].is_string());
    for request in [
        "POST /v1/publishers/nope/check",
        "GET /v1/publishers/nope/dead",
        "POST /v1/publishers/nope/replay",
        "POST /v1/publishers/nope/verify",
    ] {
        contract.refused(request, &Value::Null, 404, "unknown_publisher");
    }
    contract.refused("POST /v1/publishers/influx/replay?since=soon", &Value::Null, 400, "bad_parameter");
    contract.refused("POST /v1/publishers/influx/verify?part=1", &Value::Null, 400, "bad_parameter");
    std::fs::create_dir(settings.with_file_name("state").join("publish/archive.dead")).unwrap();
    contract.refused("GET /v1/publishers/archive/dead", &Value::Null, 500, "unreadable");
}

fn reload(contract: &Contract) {
    let settings = contract.agent.admin_socket().with_file_name("agent.toml");
    let write = |more: &str| std::fs::write(&settings, format!("{SETTINGS}{more}")).unwrap();
    write("admin.mode = \"0600\"\nlimits.containers = 1\n");
    let reloaded = contract.change("POST /v1/config/reload", &Value::Null, 200);
    assert_eq!(reloaded["needs_restart"], json!(["admin.mode"]));
    let settings_of_the_agent = contract.change("GET /v1/config", &Value::Null, 200);
    let setting = |key: &str| {
        let mut all = settings_of_the_agent.as_array().unwrap().iter();
        all.find(|setting| setting["key"] == key).unwrap()
    };
    let restart = setting("admin.mode");
    assert_eq!((&restart["value"], &restart["origin"]), (&json!("0660"), &json!("default")), "still the old");
    let at_once = setting("limits.containers");
    assert_eq!(at_once["value"], "1");
    assert!(at_once["origin"].as_str().unwrap().ends_with("agent.toml:4"), "{at_once}");
    for request in ["POST /v1/containers", "POST /container"] {
        contract.refused(request, &json!({"container_id": "one-too-many"}), 503, "too_many_containers");
    }
    let found = contract.change("POST /v1/reconcile", &Value::Null, 200);
    assert_eq!((&found["lost"], &found["notes_read"]), (&json!([]), &json!(true)));
    write("limits.containers = \"some\"\n");
    contract.refused("POST /v1/config/reload", &Value::Null, 400, "bad_configuration");
}

#[test]
fn every_answer_is_as_the_document_says_and_every_promise_is_kept() {
    let contract = populated();
    read_everything(&contract);
    read_open_windows(&contract);
    read_streams(&contract);
    speak_the_dcos_dialect(&contract);
    ask_for_what_cannot_be(&contract);
    call_wrongly(&contract);
    publish(&contract);
    reload(&contract);

    let mut answers = Vec::new();
    for operation in contract.document.operations() {
        for (status, answer) in operation.value["responses"].as_object().unwrap() {
            let content = contract.document.resolved(answer)["content"].as_object();
            let media = content.map_or(vec![""], |content| content.keys().map(String::as_str).collect());
            answers.extend(media.iter().map(|media| format!("{} {status} {media}", operation.id())));
        }
    }
    // Not tested here: an agent that is ending or has failed. `readers.rs` tests a busy one.
    answers.retain(|answer| !answer.contains(" 503 ") || answer.starts_with("reserve "));
    answers.retain(|answer| !answer.contains(" 429 "));
    assert_eq!(contract.unseen(answers), Vec::<String>::new());
    let codes = contract.document.words("ErrorCode").into_iter().map(str::to_owned);
    let rare = [
        "another_namespace",
        "archive",
        "busy",
        "cannot_enter",
        "cannot_watch",
        "deadline",
        "ending",
        "method_not_allowed",
        "misdirected",
        "no_address",
        "no_socket",
        "no_token",
        "shard_gone",
        "slow_body",
        "too_many_records",
        "unfinished",
        "unknown_route",
        "unknown_token",
    ];
    assert_eq!(contract.unseen(codes), rare);
    let mut keys = Vec::new();
    walk(&contract.document.0["components"]["schemas"], "/components/schemas", &mut |at, value| {
        if at.ends_with("/properties") && !at.contains("/allOf/") {
            keys.extend(value.as_object().unwrap().keys().map(|key| format!("{at}/{key}")));
        }
    });
    assert!(keys.len() > 200, "{}", keys.len());
    // Adopted pods, which need root (`mute.rs`), a reader that is too slow, damaged files (`damaged.rs`), and requests that are
    // no text.
    let damage = "/components/schemas/Node/properties/state_damage/items/properties";
    let rare = [
        "/components/schemas/Container/properties/adopted".to_owned(),
        "/components/schemas/TailLine/properties/lost".to_owned(),
        format!("{damage}/file"),
        format!("{damage}/places"),
        format!("{damage}/found"),
        "/components/schemas/DeadRequest/properties/content_encoding".to_owned(),
        "/components/schemas/DeadRequest/properties/body_base64".to_owned(),
    ];
    assert_eq!(contract.unseen(keys), rare);
}

/// Sends requests with one parameter: its example and every value of its enumeration.
fn give(path: &str, parameter: &Value, code: &impl Fn(&str) -> Value) {
    let name = parameter["name"].as_str().unwrap();
    let given = |value: &str| code(&format!("{path}?{name}={value}&{name}={value}"));
    let example = &parameter["example"];
    let number = example.as_u64().map(|number| number.to_string());
    let example = given(example[0].as_str().or(example.as_str()).or(number.as_deref()).unwrap());
    assert!(example.is_null() || example == "expired_cursor", "{path} {name}: {example}");
    let choices = words(&parameter["schema"]["enum"]);
    for choice in &choices {
        assert_eq!(given(choice), Value::Null, "{path} {name}={choice}");
    }
    if !choices.is_empty() {
        assert_eq!(given("blue"), "bad_parameter", "{path} {name}");
    }
}

#[test]
fn parameters_that_the_document_names_are_taken_and_others_refused() {
    // Histograms can be requested only if they are counted.
    let histograms = ["--set", "prometheus.timers=histogram"];
    let contract =
        Contract::with(Agent::with(&[histograms, ["--set", "publish.influx.type=debug"]].concat()));
    contract.agent.reserve("c-42", "web.1");
    let document = &contract.document;
    let error = |method: &str, target: &str| {
        let answer = exchange(&contract.agent, "admin", &format!("{method} {target}"), &[], b"");
        // A stream has begun and does not end.
        if answer.status == 200 { Value::Null } else { answer.error() }
    };
    let mut named = 0;
    for operation in document.operations().filter(|operation| document.takes_a_query(*operation)) {
        let (path, method) = (document.example_path(operation), operation.method.to_uppercase());
        let parameters: Vec<_> = document.parameters(operation).filter(|p| p["in"] == "query").collect();
        parameters
            .iter()
            .for_each(|parameter| give(&path, parameter, &|target| error(&method, target)["code"].clone()));
        named += parameters.len();
        let refused = error(&method, &format!("{path}?colour=blue"));
        assert_eq!(refused["code"], "unknown_parameter", "{path}");
        let message = refused["message"].as_str().unwrap();
        let names: BTreeSet<_> = parameters.iter().map(|p| p["name"].as_str().unwrap()).collect();
        match message.split_once("It takes ") {
            Some((_, known)) => assert_eq!(known.split(", ").collect::<BTreeSet<_>>(), names, "{path}"),
            None => assert!(message.ends_with("takes none") && names.is_empty(), "{path}: {message}"),
        }
    }
    assert!(named > 25, "{named}");
}
