mod limits;
mod proxies;
mod server;
mod tls;

use std::path::Path;

use super::*;
use server::{Act, NO_CONTENT, Server};

fn answer(status: &str, fields: &str, body: &str) -> Act {
    Act::Answer(format!("HTTP/1.1 {status}\r\n{fields}content-length: {}\r\n\r\n{body}", body.len()))
}

async fn post(client: &OutboundClient, url: &str) -> Result<OutboundResponse, OutboundError> {
    client.post_body(url, &[("content-type", "text/plain")], Bytes::from_static(b"a value=1\n")).await
}

fn write(path: &Path, text: &str) -> PathBuf {
    std::fs::write(path, text).unwrap();
    path.to_owned()
}

#[tokio::test]
async fn requests_arrive_whole_and_share_a_connection() {
    let server = Server::start(Act::Answer(NO_CONTENT.to_owned())).await;
    let headers = vec![("X-Scope-OrgID".to_owned(), "prod".to_owned())];
    let client = OutboundClient::new(OutboundSettings { headers, ..OutboundSettings::default() });
    for _ in 0..3 {
        let response = post(&client, &server.url("/write?db=kadabra")).await.unwrap();
        assert_eq!((response.status, response.body.len(), response.is_cut), (204, 0, false));
    }
    let requests = server.requests();
    assert_eq!((requests.len(), server.connections()), (3, 1));
    let request = &requests[2];
    assert_eq!(request.first_line(), "POST /write?db=kadabra HTTP/1.1");
    assert_eq!(request.body, b"a value=1\n");
    assert_eq!(request.field("host"), Some(server.address.to_string().as_str()));
    assert_eq!(request.field("content-type"), Some("text/plain"));
    assert_eq!(request.field("x-scope-orgid"), Some("prod"));
    assert!(request.field("user-agent").unwrap().starts_with("tallyport/"));
    assert_eq!(request.field("authorization"), None);
}

#[tokio::test]
async fn a_connection_that_the_server_has_closed_is_replaced() {
    let server =
        Server::start(Act::Last(format!("{}content-length: 2\r\n\r\nok", "HTTP/1.1 200 OK\r\n"))).await;
    let client = OutboundClient::new(OutboundSettings::default());
    for _ in 0..3 {
        assert_eq!(post(&client, &server.url("/")).await.unwrap().body, "ok");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(server.connections(), 3);
}

#[tokio::test]
async fn any_status_is_an_answer_and_a_redirect_is_not_followed() {
    let client = OutboundClient::new(OutboundSettings::default());
    for (status, reason) in [
        ("200", "OK"),
        ("401", "Unauthorized"),
        ("413", "Too Large"),
        ("429", "Slow"),
        ("500", "No"),
        ("999", "What"),
    ] {
        let server = Server::start(answer(&format!("{status} {reason}"), "retry-after: 3\r\n", "why")).await;
        let response = client.get(&server.url("/query"), &[]).await.unwrap();
        assert_eq!((response.status.to_string().as_str(), &response.body[..]), (status, &b"why"[..]));
        assert_eq!((response.header_text("Retry-After"), response.redirect_target()), (Some("3"), None));
        assert_eq!(server.requests()[0].first_line(), "GET /query HTTP/1.1");
    }
    let there = Server::start(Act::Answer(NO_CONTENT.to_owned())).await;
    let location = format!("location: {}\r\n", there.url("/login"));
    let server = Server::start(answer("307 Elsewhere", &location, "<html>sign in</html>")).await;
    let response = post(&client, &server.url("/")).await.unwrap();
    assert_eq!((response.status, response.redirect_target()), (307, Some(there.url("/login").as_str())));
    assert_eq!((server.requests().len(), there.connections()), (1, 0));
}

#[tokio::test]
async fn secrets_are_read_from_files_again_and_never_shown() {
    let server = Server::start(Act::Answer(NO_CONTENT.to_owned())).await;
    let directory = tempfile::tempdir().unwrap();
    let file = write(&directory.path().join("token"), "geheim-1\n");
    let headers_file = write(
        &directory.path().join("headers"),
        "# of the tenant\n\nX-Api-Key: geheim-2\nX-Other:  two words \n",
    );
    let credentials = Credentials::Token { scheme: "Bearer", file: file.clone() };
    let client = OutboundClient::new(OutboundSettings {
        credentials,
        headers_file: Some(headers_file),
        ..OutboundSettings::default()
    });
    post(&client, &server.url("/")).await.unwrap();
    write(&file, "geheim-3");
    post(&client, &server.url("/")).await.unwrap();
    let requests = server.requests();
    let fields =
        |name: &str| requests.iter().map(|it| it.field(name).unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(fields("authorization"), ["Bearer geheim-1", "Bearer geheim-3"]);
    assert_eq!(fields("x-api-key"), ["geheim-2", "geheim-2"]);
    assert_eq!(fields("x-other"), ["two words", "two words"]);
    let request = client.build_request(Method::POST, &server.url("/"), &[], Bytes::new()).unwrap();
    for shown in [format!("{client:?}"), format!("{request:?}")] {
        assert!(!shown.contains("geheim") && !shown.contains("words"), "{shown}");
    }
}

#[tokio::test]
async fn a_password_and_a_key_are_sent_as_their_servers_want_them() {
    let server = Server::start(Act::Answer(NO_CONTENT.to_owned())).await;
    let directory = tempfile::tempdir().unwrap();
    let file = write(&directory.path().join("secret"), "sesame\n");
    for (credentials, field, value) in [
        // "aladdin:sesame" in base64.
        (
            Credentials::Basic { user: "aladdin".to_owned(), password_file: file.clone() },
            "authorization",
            "Basic YWxhZGRpbjpzZXNhbWU=",
        ),
        (Credentials::Key { header: "dd-api-key", file: file.clone() }, "dd-api-key", "sesame"),
        (Credentials::Token { scheme: "Token", file: file.clone() }, "authorization", "Token sesame"),
    ] {
        let client = OutboundClient::new(OutboundSettings { credentials, ..OutboundSettings::default() });
        post(&client, &server.url("/")).await.unwrap();
        assert_eq!(server.requests().last().unwrap().field(field), Some(value));
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_named_without_what_is_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let token = |file: PathBuf| OutboundSettings {
        credentials: Credentials::Token { scheme: "Bearer", file },
        ..OutboundSettings::default()
    };
    let headers =
        |file: PathBuf| OutboundSettings { headers_file: Some(file), ..OutboundSettings::default() };
    for (settings, part) in [
        (token(at("missing")), "No such file"),
        (token(write(&at("empty"), " \n")), "is empty"),
        (token(write(&at("two"), "geheim\ngeheim")), "no header field can have"),
        (token(write(&at("long"), &"geheim".repeat(4096))), "longer than 16 KiB"),
        (headers(write(&at("headers"), "A: b\ngeheim\n")), "no header field in line 2"),
        (headers(write(&at("name"), "ge heim: b\n")), "in line 1"),
    ] {
        let error = post(&OutboundClient::new(settings), "http://127.0.0.1:1/").await.unwrap_err();
        let text = error.to_string();
        assert!(error.is_local() && error.failure_code() == "file", "{error:?}");
        assert!(text.contains(part) && !text.contains("geheim"), "{text}");
        assert!(text.starts_with(directory.path().to_str().unwrap()), "{text}");
    }
}

#[tokio::test]
async fn a_request_that_cannot_be_made_says_why() {
    let client = OutboundClient::new(OutboundSettings::default());
    for (url, part) in [
        ("mimir:9009/api", "cannot be parsed"),
        ("ftp://h/", "http://"),
        ("/path", "host"),
        ("http://me:geheim@h/", "a user or a password"),
        ("http://h h", "cannot be parsed"),
    ] {
        let error = post(&client, url).await.unwrap_err();
        let text = error.to_string();
        assert!(error.is_local() && text.contains(part) && !text.contains("geheim"), "{url}: {text}");
    }
    let headers = vec![("a b".to_owned(), "geheim".to_owned())];
    let client = OutboundClient::new(OutboundSettings { headers, ..OutboundSettings::default() });
    let error = post(&client, "http://127.0.0.1:1/").await.unwrap_err();
    assert!(error.is_local() && !error.to_string().contains("geheim"), "{error}");
}
