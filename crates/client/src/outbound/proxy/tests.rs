use super::*;

fn rules(variables: &[(&str, &str)]) -> ProxyRules {
    let get =
        |name: &str| variables.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned());
    ProxyRules::new(&Proxy::Variables(ProxyVariables::read(get))).unwrap()
}

fn route(rules: &ProxyRules, url: &str) -> String {
    match rules.route_to(&url.parse().unwrap()) {
        Route::Direct => "direct".to_owned(),
        Route::Forward(proxy) => format!("forward {proxy}"),
        Route::Tunnel(proxy) => format!("tunnel {proxy}"),
    }
}

#[test]
fn each_scheme_has_its_proxy_and_the_lower_case_is_preferred() {
    let found = rules(&[
        ("HTTP_PROXY", "http://upper:1"),
        ("http_proxy", "lower:3128"),
        ("HTTPS_PROXY", "http://tls.example/"),
    ]);
    assert_eq!(route(&found, "http://sink:8086/write"), "forward lower:3128");
    assert_eq!(route(&found, "https://sink/write"), "tunnel tls.example:80");
    for own in ["http://localhost:1/", "http://127.0.0.9/", "https://[::1]/"] {
        assert_eq!(route(&found, own), "direct", "{own}");
    }
    let empty = rules(&[("http_proxy", ""), ("HTTP_PROXY", " ")]);
    assert_eq!(route(&empty, "http://sink/"), "direct");
}

#[test]
fn exceptions_are_names_networks_and_ports() {
    let no_proxy = "internal.example, .dotted.example *.star.example,10.0.0.0/8,192.168.1.7 [fd00::1],fd01::/16,port.example:8086";
    let found = rules(&[("HTTP_PROXY", "http://p:1"), ("no_proxy", no_proxy)]);
    for direct in [
        "internal.example",
        "a.b.Internal.example",
        "dotted.example",
        "a.dotted.example",
        "x.star.example",
        "10.255.0.1",
        "192.168.1.7",
        "[fd00::1]",
        "[fd01:2::3]:80",
        "port.example:8086",
    ] {
        assert_eq!(route(&found, &format!("http://{direct}/")), "direct", "{direct}");
    }
    for proxied in [
        "notinternal.example",
        "example",
        "11.0.0.1",
        "192.168.1.8",
        "[fd02::1]",
        "port.example",
        "port.example:80",
    ] {
        assert_eq!(route(&found, &format!("http://{proxied}/")), "forward p:1", "{proxied}");
    }
    let all = rules(&[("HTTP_PROXY", "http://p:1"), ("NO_PROXY", "*")]);
    assert_eq!(route(&all, "http://sink/"), "direct");
}

#[test]
fn a_url_of_its_own_has_no_exceptions() {
    let own = ProxyRules::new(&Proxy::Url("http://[::1]:3128".to_owned())).unwrap();
    assert_eq!(route(&own, "http://localhost/"), "forward [::1]:3128");
    assert_eq!(route(&own, "https://sink/"), "tunnel [::1]:3128");
}

#[test]
fn what_is_no_proxy_is_refused_without_being_repeated() {
    for wrong in ["socks5://me:geheim@p:1", "https://me:geheim@p", "http://", "http://me:geheim@p:x", "a b"] {
        let error = ProxyRules::new(&Proxy::Url(wrong.to_owned())).unwrap_err();
        assert!(!error.to_string().contains("geheim") && error.to_string().contains("HOST"), "{error}");
    }
}

#[test]
fn a_password_of_a_proxy_is_sent_and_not_shown() {
    let url = "http://me:ge%40heim@proxy:3128";
    let server = ProxyServer::parse(url).unwrap();
    // "me:ge@heim" in base64.
    assert_eq!(server.authorization_value().unwrap(), "Basic bWU6Z2VAaGVpbQ==");
    let variables = ProxyVariables::read(|_| Some(url.to_owned()));
    let texts = [
        format!("{server:?} {server} {:?}", Proxy::Url(url.to_owned())),
        format!("{:?} {variables:?}", Proxy::Variables(variables.clone())),
    ];
    for text in texts {
        assert!(!text.contains("heim") && !text.contains("bWU6"), "{text}");
    }
}
