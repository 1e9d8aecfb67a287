use std::sync::atomic::AtomicUsize;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};

use futures_util::StreamExt as _;

use super::room::{CHUNK, Reclaimable as _};
use super::*;
use crate::api::Chunks;
use crate::config::ProcessEnvironment;
use crate::net::http::Peer;
use crate::query::Sink as _;

const MIB: usize = 1 << 20;

fn configuration() -> Arc<AgentConfig> {
    let text = "http.page_memory = \"1MiB\"\nstate_dir = \"/s\"";
    Arc::new(AgentConfig::from_toml(text, &ProcessEnvironment).unwrap())
}

struct Node {
    config: Arc<AgentConfig>,
    pages: Pages,
}

impl Node {
    fn new() -> Self {
        let config = configuration();
        Self { pages: Pages::new(&Arc::new(RwLock::new(Arc::clone(&config)))), config }
    }

    fn shows(&self, containers: u64) -> Shows {
        let published = Cursor { epoch: 1, seq: 1 };
        Shows { published, containers, config: Arc::clone(&self.config) }
    }

    async fn until(&self, what: &str, condition: impl Fn(PageCounts) -> bool) {
        let met = async {
            while !condition(self.pages.load_counts()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let met = tokio::time::timeout(Duration::from_secs(30), met).await;
        assert!(met.is_ok(), "{what}: {:?}", self.pages.load_counts());
    }
}

impl Pages {
    async fn answer_owned<R>(self, request: PageRequest, render: R) -> Result<ApiResponse, ApiError>
    where
        R: FnOnce(&mut PageWriter) -> Result<(), Stop> + Send + 'static,
    {
        self.answer_request(request, move |_| async move { Ok(render) }).await
    }
}

fn request(detail: &str) -> PageRequest {
    PageRequest::new(asker(1), BuildLane::Node, "/r", detail.to_owned())
}

fn asker(host: u8) -> Asker {
    Asker::new(Some(Peer::Tcp(([10, 0, 0, host], 1).into())))
}

fn text(answer: &ApiResponse) -> &[u8] {
    match &answer.body {
        Body::Whole(bytes) => bytes,
        _ => b"",
    }
}

fn chunks(answer: ApiResponse) -> Chunks {
    match answer.body {
        Body::Chunks(chunks) => chunks,
        _ => panic!("the answer is not streamed"),
    }
}

/// A build that starts and then waits until the other end is dropped.
fn held_up() -> (mpsc::Sender<()>, impl FnOnce(&mut PageWriter) -> Result<(), Stop>) {
    let (open, gate) = mpsc::channel::<()>();
    (open, move |writer: &mut PageWriter| {
        let _dropped = gate.recv();
        writer.write_bytes(b"held up")
    })
}

fn large(writer: &mut PageWriter) -> Result<(), Stop> {
    (0..64).try_for_each(|_| writer.write_bytes(&vec![b'x'; 128 << 10]))
}

#[tokio::test]
async fn requests_for_one_page_share_it_while_it_waits_and_while_nothing_changes() {
    let node = Node::new();
    let built = Arc::new(AtomicUsize::new(0));
    let ask = |shows| {
        let counted = Arc::clone(&built);
        let request = PageRequest { shows: Some(shows), ..request("a") };
        let render = move |writer: &mut PageWriter| {
            writer.write_bytes(format!("build {}", counted.fetch_add(1, Ordering::Relaxed)).as_bytes())
        };
        node.pages.answer_request(request, move |_| async move { Ok(render) })
    };
    let (first, second) = tokio::join!(ask(node.shows(1)), ask(node.shows(1)));
    assert_eq!((text(&first.unwrap()), text(&second.unwrap())), (&b"build 0"[..], &b"build 0"[..]));
    assert_eq!(text(&ask(node.shows(1)).await.unwrap()), b"build 0", "nothing has changed since");
    assert_eq!(text(&ask(node.shows(2)).await.unwrap()), b"build 1", "a container has changed");
    assert_eq!(node.pages.load_counts().shared, 2);
}

#[tokio::test]
async fn a_page_that_depends_on_more_is_shared_only_until_its_build_begins() {
    let node = Node::new();
    let (open, build) = held_up();
    let first = tokio::spawn(node.pages.clone().answer_owned(request("a"), build));
    node.until("the first build begins", |counts| counts.built == 1).await;
    let (open_second, build) = held_up();
    let second = tokio::spawn(node.pages.clone().answer_owned(request("a"), build));
    node.until("the second build begins", |counts| counts.built == 2).await;
    drop((open, open_second));
    assert!(first.await.unwrap().is_ok() && second.await.unwrap().is_ok());
    assert_eq!(node.pages.load_counts().shared, 0);
}

#[tokio::test]
async fn two_pages_of_a_client_are_built_at_a_time_and_beyond_its_queue_it_is_told_to_come_again() {
    let node = Node::new();
    let mut gates = Vec::new();
    let mut answers = Vec::new();
    let mut ask = |host, detail: &str| {
        let (gate, build) = held_up();
        gates.push(gate);
        let request = PageRequest { asker: asker(host), ..request(detail) };
        tokio::spawn(node.pages.clone().answer_owned(request, build))
    };
    for n in 0..2 {
        answers.push(ask(1, &format!("built {n}")));
    }
    node.until("two builds begin", |counts| counts.built == 2).await;
    let (_, most) = BuildLane::Node.queue_limits();
    for n in 0..most {
        answers.push(ask(1, &format!("waits {n}")));
    }
    let refused = ask(1, "one too many").await.unwrap().unwrap_err();
    assert_eq!((refused.status, refused.code), (429, "busy"));
    assert_eq!(ApiResponse::from(refused).headers, [("retry-after", "2".to_owned())]);
    answers.push(ask(2, "of another client"));
    node.until("a builder is left for another client", |counts| counts.built == 3).await;
    let other = PageRequest { lane: BuildLane::Short, ..request("another lane") };
    let other = node.pages.answer_request(other, move |_| async move {
        Ok(|writer: &mut PageWriter| writer.write_bytes(b"x"))
    });
    assert_eq!(text(&other.await.unwrap()), b"x", "cheap requests do not wait");
    assert_eq!((node.pages.load_counts().built, node.pages.load_counts().busy), (4, 1));
    gates.clear();
    for answer in answers {
        assert_eq!(text(&answer.await.unwrap().unwrap()), b"held up");
    }
    assert!(node.pages.0.lock_shelf().waiting.is_empty());
}

#[tokio::test(start_paused = true)]
async fn pages_whose_readers_have_gone_take_no_builder_any_time() {
    let node = Node::new();
    let (gates, busy): (Vec<_>, Vec<_>) = (0..2)
        .map(|n| {
            let (gate, build) = held_up();
            (gate, tokio::spawn(node.pages.clone().answer_owned(request(&format!("busy {n}")), build)))
        })
        .unzip();
    while node.pages.load_counts().built < 2 {
        tokio::task::yield_now().await;
    }
    for n in 0..20 {
        let gone = PageRequest { shows: Some(node.shows(1)), ..request(&format!("gone {n}")) };
        drop(
            node.pages
                .open_reader(
                    gone,
                    move |_| async move { Ok(|writer: &mut PageWriter| writer.write_bytes(b"x")) },
                )
                .unwrap(),
        );
    }
    let began = tokio::time::Instant::now();
    drop(gates);
    let next = node.pages.answer_request(request("next"), move |_| async move {
        Ok(|writer: &mut PageWriter| writer.write_bytes(b"x"))
    });
    assert_eq!(text(&next.await.unwrap()), b"x");
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    for answer in busy {
        assert!(answer.await.unwrap().is_ok());
    }
}

#[tokio::test]
async fn a_page_larger_than_its_memory_goes_to_a_reader_that_reads() {
    let node = Node::new();
    let answer = node.pages.answer_request(request("a"), move |_| async move { Ok(large) }).await.unwrap();
    let (mut chunks, mut length) = (chunks(answer), 0);
    while let Some(chunk) = chunks.next().await {
        length += chunk.unwrap().len();
        assert!(node.pages.load_counts().held <= 2 * MIB, "{:?}", node.pages.load_counts());
    }
    assert_eq!(length, 8 * MIB);
    drop(chunks);
    node.until("nothing is held", |counts| counts.held == 0).await;
}

#[tokio::test]
async fn readers_that_do_not_read_are_cut_off_for_one_that_does() {
    let node = Node::new();
    let unread =
        node.pages.answer_request(request("unread"), move |_| async move { Ok(large) }).await.unwrap();
    node.until("its memory is used up", |counts| counts.held + (256 << 10) > MIB).await;
    let read = node.pages.answer_request(request("read"), move |_| async move { Ok(large) }).await.unwrap();
    let lengths = chunks(read).map(|chunk| chunk.unwrap().len()).collect::<Vec<_>>().await;
    assert_eq!(lengths.iter().sum::<usize>(), 8 * MIB);
    let mut unread = chunks(unread);
    let last = async {
        while let Some(chunk) = unread.next().await {
            chunk?;
        }
        Ok::<_, std::io::Error>(())
    };
    assert!(last.await.unwrap_err().to_string().contains("too slow"), "it is not taken for the whole");
    // By the build that waited for room, which may not have counted it yet.
    node.until("it is counted", |counts| counts.cut == 1).await;
    drop(unread);
    node.until("nothing is held", |counts| counts.held == 0).await;
}

#[tokio::test]
async fn requests_with_patterns_are_answered_at_a_lower_priority_than_others() {
    let node = Node::new();
    let nice = async |lane| {
        let render = |writer: &mut PageWriter| {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            let fields = stat.rsplit_once(") ").unwrap().1;
            writer.write_bytes(fields.split(' ').nth(16).unwrap().as_bytes())
        };
        let request = PageRequest { lane, ..request("a") };
        let answer = node.pages.answer_request(request, move |_| async move { Ok(render) }).await.unwrap();
        std::str::from_utf8(text(&answer)).unwrap().parse::<i32>().unwrap()
    };
    let usual = nice(BuildLane::Short).await;
    assert_eq!(nice(BuildLane::Search).await, usual.max(5));
    for lane in [BuildLane::Node, BuildLane::Short, BuildLane::Admin] {
        assert_eq!(nice(lane).await, usual, "{lane:?}: threads of the pool keep theirs");
    }
}

#[tokio::test]
async fn a_build_stops_when_all_its_readers_have_gone() {
    let node = Node::new();
    let (stopped, heard) = mpsc::channel();
    let endless = move |writer: &mut PageWriter| {
        let stop = loop {
            if let Err(stop) = writer.write_bytes(&[b'x'; 1 << 10]) {
                break stop;
            }
        };
        let _either_way = stopped.send(format!("{stop:?}"));
        Err(stop)
    };
    let answer = node.pages.answer_request(request("a"), move |_| async move { Ok(endless) }).await.unwrap();
    drop(answer);
    let stop =
        tokio::task::spawn_blocking(move || heard.recv_timeout(Duration::from_secs(30))).await.unwrap();
    assert_eq!(stop.unwrap(), "Unread");
    node.until("nothing is held", |counts| counts.held == 0).await;
}

#[tokio::test]
async fn an_error_before_the_first_byte_is_the_answer_and_one_after_it_breaks_the_stream() {
    let node = Node::new();
    let fails = |_: &mut PageWriter| Err(Stop::Error(ApiError::shutting_down()));
    let error = node.pages.answer_request(request("a"), move |_| async move { Ok(fails) }).await.unwrap_err();
    assert_eq!(error.code, "ending");
    let breaks = |writer: &mut PageWriter| {
        writer.write_bytes(&vec![b'x'; CHUNK])?;
        Err(Stop::Error(ApiError::shutting_down()))
    };
    let answer = node.pages.answer_request(request("b"), move |_| async move { Ok(breaks) }).await.unwrap();
    let chunks: Vec<_> = chunks(answer).take(2).collect().await;
    assert!(chunks[0].is_ok() && chunks[1].is_err());
}

#[tokio::test]
async fn a_reader_that_is_fast_lets_others_have_a_turn() {
    let node = Node::new();
    let render =
        |writer: &mut PageWriter| (0..7).try_for_each(|_| writer.write_bytes(&vec![b'x'; 128 << 10]));
    let mut chunks = chunks(node.pages.clone().answer_owned(request("a"), render).await.unwrap());
    node.until("everything is rendered", |counts| counts.held >= 7 * (128 << 10)).await;
    let mut context = Context::from_waker(Waker::noop());
    let (mut turns, mut taken) = (0, 0);
    loop {
        match chunks.poll_next_unpin(&mut context) {
            Poll::Ready(Some(chunk)) => taken += chunk.unwrap().len(),
            Poll::Ready(None) => break,
            Poll::Pending => turns += 1,
        }
    }
    assert_eq!(taken, 7 * (128 << 10));
    assert!(turns >= 4, "{taken} bytes in {turns} turns");
}

#[tokio::test(start_paused = true)]
async fn a_builder_stays_taken_while_a_thread_works_for_a_request_that_was_given_up() {
    let node = Node::new();
    let (open, gate) = mpsc::channel::<()>();
    let late = PageRequest { lane: BuildLane::Search, ..request("late") };
    let gather = |work: PageWork| async move {
        let step = move |_: &Deadline| {
            let _dropped = gate.recv();
            Ok(())
        };
        work.run(step).await?;
        Ok(|writer: &mut PageWriter| writer.write_bytes(b"late"))
    };
    let error = node.pages.answer_request(late, gather).await.unwrap_err();
    assert_eq!(
        (error.code, node.pages.load_counts().late),
        ("unfinished", 1),
        "it was given up at its deadline"
    );
    let ask = |detail: &str| {
        let request = PageRequest { lane: BuildLane::Search, ..request(detail) };
        node.pages.answer_request(request, move |_| async move {
            Ok(|writer: &mut PageWriter| writer.write_bytes(b"x"))
        })
    };
    assert_eq!(ask("next").await.unwrap_err().code, "busy", "its thread works on");
    drop(open);
    // In real time: the paused clock of this test advances while nothing else happens.
    while node.pages.0.builders.free_builders(BuildLane::Search) == 0 {
        std::thread::yield_now();
    }
    assert_eq!(text(&ask("after").await.unwrap()), b"x");
}

#[tokio::test]
async fn steps_before_rendering_have_the_priority_of_the_request_by_whichever_socket_it_comes() {
    let node = Node::new();
    let nice = || {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        stat.rsplit_once(") ").unwrap().1.split(' ').nth(16).unwrap().to_owned()
    };
    let usual: i32 = tokio::task::spawn_blocking(nice).await.unwrap().parse().unwrap();
    let admin = Asker::new(Some(Peer::Unix { uid: 0, pid: Some(1) }));
    for asker in [asker(1), admin] {
        for (lane, expected) in [(BuildLane::Search, usual.max(5)), (BuildLane::Short, usual)] {
            let request = PageRequest { asker, lane, ..request(&format!("{lane:?}")) };
            let gather = move |work: PageWork| async move {
                let nice = work.run(move |_| Ok(nice())).await?;
                Ok(move |writer: &mut PageWriter| writer.write_bytes(nice.as_bytes()))
            };
            let answer = node.pages.answer_request(request, gather).await.unwrap();
            assert_eq!(
                std::str::from_utf8(text(&answer)).unwrap(),
                expected.to_string(),
                "{asker:?} {lane:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_name_is_compared_by_one_thread_at_a_time_and_others_get_no_suggestions_at_once() {
    let node = Node::new();
    let (open, gate) = mpsc::channel::<()>();
    let (began, begun) = mpsc::channel();
    let compare = move || {
        began.send(()).unwrap();
        let _dropped = gate.recv();
        vec!["first".to_owned()]
    };
    let pages = node.pages.clone();
    let first = tokio::spawn(async move { pages.suggest_names(asker(1), compare).await });
    tokio::task::spawn_blocking(move || begun.recv()).await.unwrap().unwrap();
    let second = || vec!["second".to_owned()];
    assert!(node.pages.suggest_names(asker(2), second).await.is_empty());
    let admin = Asker::new(Some(Peer::Unix { uid: 0, pid: Some(1) }));
    assert_eq!(
        node.pages.suggest_names(admin, second).await,
        ["second"],
        "the admin socket has a turn of its own"
    );
    drop(open);
    assert_eq!(first.await.unwrap(), ["first"]);
    assert_eq!(node.pages.suggest_names(asker(2), second).await, ["second"]);
}

/// Renders an event of this many bytes, and returns its unsent rest.
async fn event(events: &EventRenderer, bytes: usize) -> PageReader {
    let render = move |text: &mut Vec<u8>, _: &Deadline| {
        text.resize(bytes, b'e');
        Ok(())
    };
    events.render_event(render).await.unwrap().1.unwrap()
}

#[tokio::test]
async fn an_event_counts_against_the_memory_of_pages_until_it_is_sent() {
    let node = Node::new();
    let events = node.pages.event_renderer(asker(1), false);
    let mut sending = event(&events, 300 << 10).await;
    assert!(node.pages.load_counts().held >= 300 << 10, "{:?}", node.pages.load_counts());
    let mut length = 0;
    while let Some(chunk) = sending.next().await {
        length += chunk.unwrap().len();
        let left = (300 << 10) - length;
        assert!(
            node.pages.load_counts().held <= left + CHUNK,
            "what is sent is freed: {:?}",
            node.pages.load_counts()
        );
    }
    assert_eq!((length, node.pages.load_counts().held), (300 << 10, 0));
    let nothing = events.render_event(|_, _| Ok(7)).await.unwrap();
    assert!(matches!(nothing, (7, None)), "an event without text holds nothing");
}

#[tokio::test]
async fn streams_that_wait_for_room_keep_no_builder_and_unread_events_make_room() {
    let node = Node::new();
    let events = [false, false, true].map(|patterns| node.pages.event_renderer(asker(1), patterns));
    let mut unread = event(&events[0], 2 * MIB).await;
    let waiting: Vec<_> = events
        .iter()
        .map(|events| {
            let events = events.clone();
            tokio::spawn(async move { event(&events, 100 << 10).await })
        })
        .collect();
    for events in &events {
        assert_eq!(events.run(|_| Ok(1)).await, Ok(1), "its builder is free");
    }
    assert!(waiting.iter().all(|waits| !waits.is_finished()), "there is no room for them");
    for event in waiting {
        let length: usize =
            event.await.unwrap().map(|chunk| chunk.unwrap().len()).collect::<Vec<_>>().await.iter().sum();
        assert_eq!(length, 100 << 10);
    }
    assert!(unread.next().await.unwrap().is_err(), "its reader sees that it was cut short");
    node.until("it is counted", |counts| counts.cut == 1).await;
}

#[tokio::test]
async fn a_client_that_reads_does_not_wait_for_one_that_does_not() {
    let node = Node::new();
    let [slow, quick] = [asker(1), asker(2)].map(|asker| node.pages.event_renderer(asker, false));
    let unread = event(&slow, MIB + MIB / 2).await;
    for _ in 0..3 {
        let chunks: Vec<_> = event(&quick, 100 << 10).await.collect().await;
        assert!(chunks.iter().all(Result::is_ok));
    }
    assert_eq!(node.pages.load_counts().cut, 0, "neither had to be cut short");
    drop(unread);
    assert_eq!(node.pages.load_counts().held, 0);
}

/// Adds readers of one client that do not read until the memory of pages is used up.
async fn fill(node: &Node, host: u8) -> Vec<ApiResponse> {
    let limit = node.pages.load_counts().limit;
    let mut unread = Vec::new();
    while node.pages.load_counts().held < limit {
        let request = PageRequest { asker: asker(host), ..request(&format!("{host} {}", unread.len())) };
        let render = |writer: &mut PageWriter| writer.write_bytes(&vec![b'x'; 3 * CHUNK]);
        unread.push(node.pages.answer_request(request, move |_| async move { Ok(render) }).await.unwrap());
        node.until("a page is rendered, or memory is used up", |counts| {
            counts.held >= limit.min(3 * CHUNK * unread.len())
        })
        .await;
    }
    unread
}

#[tokio::test]
async fn a_small_answer_does_not_wait_for_readers_that_do_not_read() {
    let node = Node::new();
    let unread = fill(&node, 1).await;
    for n in 0..20 {
        let small = PageRequest { asker: asker(2), lane: BuildLane::Short, ..request(&format!("small {n}")) };
        let render = |writer: &mut PageWriter| writer.write_bytes(b"small");
        let answer = node.pages.answer_request(small, move |_| async move { Ok(render) }).await.unwrap();
        assert_eq!(text(&answer), b"small");
    }
    assert_eq!(node.pages.load_counts().cut, 0, "no reader had to be disconnected for them");
    drop(unread);
    node.until("nothing is held", |counts| counts.held == 0).await;
}

#[tokio::test]
async fn a_large_answer_reaches_a_client_that_reads_beside_readers_that_do_not() {
    let node = Node::new();
    let unread = fill(&node, 1).await;
    let request = PageRequest { asker: asker(2), ..request("read") };
    let read = node.pages.answer_request(request, move |_| async move { Ok(large) }).await.unwrap();
    let (mut read, mut length) = (chunks(read), 0);
    while let Some(chunk) = read.next().await {
        length += chunk.unwrap().len();
        assert!(node.pages.load_counts().held < 2 * MIB, "{:?}", node.pages.load_counts());
    }
    assert_eq!((length, node.pages.load_counts().cut), (8 * MIB, 0));
    drop(unread);
}

#[tokio::test]
async fn a_client_that_does_not_read_gets_nothing_of_the_reserve() {
    let node = Node::new();
    let unread = fill(&node, 1).await;
    let held = node.pages.load_counts().held;
    let more =
        tokio::spawn(node.pages.clone().answer_owned(request("more"), |writer| writer.write_bytes(b"more")));
    node.until("a reader is cut off for it", |counts| counts.cut > 0 || counts.held > held).await;
    assert!(node.pages.load_counts().cut > 0, "{:?}", node.pages.load_counts());
    assert_eq!(text(&more.await.unwrap().unwrap()), b"more");
    drop(unread);
}

#[tokio::test]
async fn a_chunk_is_unread_until_its_connection_has_written_it() {
    let node = Node::new();
    let room = &node.pages.0.room;
    let unread = fill(&node, 1).await;
    let page = BufferedPage::new(room);
    let client = asker(2).client();
    let [mut reads, mut shares] = [PageReader::open(&page, client), PageReader::open(&page, client)];
    page.append_chunk(room.hold_chunk(vec![b'x'; CHUNK]), true);
    assert!(!room.has_room_for(client));
    let written = (reads.next().await, shares.next().await);
    assert!(!room.has_room_for(client), "both are still being written");
    drop(written);
    assert!(room.has_room_for(client));
    let joins = PageReader::open(&page, client);
    assert!(!room.has_room_for(client), "a reader that joins later has the same to read");
    drop((reads, shares, joins, page, unread));
    node.until("nothing is held", |counts| counts.held == 0).await;
}

#[tokio::test]
async fn what_is_rendered_at_once_is_sent_in_chunks() {
    let node = Node::new();
    let render = |writer: &mut PageWriter| writer.write_bytes(&vec![b'x'; 10 * CHUNK + 1]);
    let answer = node.pages.clone().answer_owned(request("a"), render).await.unwrap();
    let lengths: Vec<_> = chunks(answer).map(|chunk| chunk.unwrap().len()).collect().await;
    assert_eq!(lengths.iter().sum::<usize>(), 10 * CHUNK + 1);
    assert!(lengths.iter().all(|length| *length <= CHUNK), "{lengths:?}");
}

#[tokio::test]
async fn answers_stand_still_while_the_agent_is_handed_over_and_go_on_if_that_fails() {
    let node = Node::new();
    let ((open, gate), (began, begun)) = (mpsc::channel::<()>(), mpsc::channel());
    let goes_on = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = Arc::clone(&goes_on);
    let render = move |writer: &mut PageWriter| {
        writer.write_bytes(&vec![b'x'; 2 * CHUNK])?;
        let _dropped = gate.recv();
        began.send(()).unwrap();
        writer.write_bytes(&vec![b'x'; CHUNK])?;
        assert!(seen.load(Ordering::Relaxed), "a chunk is added meanwhile");
        Ok(())
    };
    let pages = node.pages.clone();
    let answer = tokio::spawn(pages.answer_owned(request("a"), render));
    node.until("two chunks are there", |counts| counts.held >= 2 * CHUNK).await;
    let mut chunks = chunks(answer.await.unwrap().unwrap());
    node.pages.stand_still(true);
    let mut context = Context::from_waker(Waker::noop());
    assert!(chunks.poll_next_unpin(&mut context).is_pending(), "a chunk is there, and is not written");
    drop(open);
    tokio::task::spawn_blocking(move || begun.recv()).await.unwrap().unwrap();
    goes_on.store(true, Ordering::Relaxed);
    node.pages.stand_still(false);
    let lengths: Vec<_> = chunks.map(|chunk| chunk.unwrap().len()).collect().await;
    assert_eq!(lengths.iter().sum::<usize>(), 3 * CHUNK);
}

#[tokio::test]
async fn a_reader_that_is_kept_waiting_is_not_slow() {
    let node = Node::new();
    let page = BufferedPage::new(&node.pages.0.room);
    let [rests, lags] = [PageReader::open(&page, None), PageReader::open(&page, None)];
    page.append_chunk(bytes::Bytes::from_static(b"x"), true);
    let (now, second) = (Instant::now(), Duration::from_secs(1));
    page.mark_resting(rests.number(), now + 3 * second);
    assert_eq!(page.cut_lagging(now + 4 * second, 2 * second), 1);
    assert_eq!(page.cut_lagging(now + 6 * second, 2 * second), 1);
    drop((rests, lags));
}
