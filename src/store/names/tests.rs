use super::*;
use crate::model::{ContainerId, Generation, Labels, MetricType, TagSet, TaskId};
use crate::render::prometheus::NameKind;

const DAY: u64 = 24 * 3600;

fn at(secs: u64) -> Timestamp {
    Timestamp::from_secs(1_767_225_600).saturating_add(Duration::from_secs(secs))
}

fn origin(task: &str) -> Origin {
    Origin {
        container_id: ContainerId::new(task).unwrap(),
        generation: Generation(1),
        task_id: TaskId::new(task).unwrap(),
        labels: Labels::new(),
    }
}

fn series(name: &str, metric_type: MetricType, tags: &[&str]) -> Arc<Series> {
    let tags = TagSet::from_pairs(tags.iter().map(|key| (*key, "x")));
    Arc::new(Series { name: name.into(), tags, metric_type, created: at(0) })
}

fn counter(name: &str) -> Arc<Series> {
    series(name, MetricType::Counter, &[])
}

/// The names of one task, as its series come and go.
struct Task<'n>(&'n mut Names, &'n str);

impl Task<'_> {
    fn comes(&mut self, series: &Arc<Series>, secs: u64) -> &mut Self {
        self.0.update_series(
            Changed::from_series(&origin(self.1), std::iter::once(series), std::iter::empty()),
            Some(at(secs)),
        );
        self
    }

    fn goes(&mut self, series: &Arc<Series>, secs: u64) -> &mut Self {
        self.0.update_series(
            Changed::from_series(&origin(self.1), std::iter::empty(), std::iter::once(series)),
            Some(at(secs)),
        );
        self
    }
}

/// The spellings of a task's counter with underscores and in UTF-8.
fn shown(names: &Names, task: &str, name: &str) -> [String; 2] {
    let workload = SeriesIdentity::from_origin(&origin(task), Level::Low);
    let name = Name { kind: NameKind::Metric(MetricType::Counter), text: name.into() };
    let spelled = names.workloads[&workload].claims[&name].spelled;
    Escaping::ALL
        .map(|escaping| name.exposed_name(NameSpelling { escaping, mark: spelled[escaping as usize] }))
}

fn meetings(names: &Names) -> Vec<Meeting> {
    let mut meetings = Meeting::list_from_marks(&names.all_marks(), 10);
    names.explain_meetings(&mut meetings);
    meetings
}

#[test]
fn the_first_of_two_names_that_meet_is_plain_and_the_other_marked_whichever_goes() {
    let mut names = Names::default();
    let (dot, score) = (counter("a.b"), counter("a_b"));
    Task(&mut names, "web.1").comes(&dot, 0).comes(&score, 10);
    assert_eq!(shown(&names, "web.1", "a.b")[0], "a_b_total");
    let [marked, utf8] = shown(&names, "web.1", "a_b");
    assert!(marked.starts_with("a_b__"), "{marked}");
    assert_eq!(utf8, "a_b_total", "they meet in underscores alone");
    Task(&mut names, "web.1").goes(&dot, 20).goes(&score, 30).comes(&score, 40);
    assert_eq!(shown(&names, "web.1", "a_b")[0], marked, "a series that was served goes on under its name");
    let meetings = meetings(&names);
    assert_eq!((names.marked_count(), meetings.len()), (1, 1));
    assert_eq!(meetings[0].first.as_ref().map(|first| &*first.text), Some("a.b"));
    assert_eq!(meetings[0].shown, marked);
}

#[test]
fn what_one_workload_sends_changes_no_name_of_another() {
    let mut names = Names::default();
    Task(&mut names, "a.1").comes(&counter("a.b"), 0);
    Task(&mut names, "b.1").comes(&counter("a_b"), 10);
    assert_eq!((names.marked_count(), &*shown(&names, "b.1", "a_b")[0]), (0, "a_b_total"));
    // Containers of one workload are one series at the coarsest identity.
    Task(&mut names, "a.2").comes(&counter("a_b"), 20);
    assert_eq!(names.marked_count(), 1);
}

#[test]
fn a_name_is_free_again_once_its_counters_are_forgotten() {
    let mut names = Names::default();
    let (dot, score) = (counter("a.b"), counter("a_b"));
    Task(&mut names, "web.1").comes(&dot, 0).comes(&counter("live"), 0).goes(&dot, 10);
    Task(&mut names, "web.1").comes(&score, DAY);
    assert!(shown(&names, "web.1", "a_b")[0].contains("__"), "readers may have seen it within 25 hours");
    Task(&mut names, "web.1").goes(&score, DAY + 10).comes(&counter("tick"), 3 * DAY);
    Task(&mut names, "web.1").comes(&score, 3 * DAY);
    assert_eq!((&*shown(&names, "web.1", "a_b")[0], names.marked_count()), ("a_b_total", 0));
}

#[test]
fn tags_of_a_workload_are_told_apart_as_its_names_are() {
    let mut names = Names::default();
    let both = series("hits", MetricType::Counter, &["http.method", "http_method", "job", "client_job"]);
    Task(&mut names, "web.1").comes(&both, 0);
    let marked: Vec<_> = meetings(&names).into_iter().map(|meeting| meeting.marked.text).collect();
    assert_eq!(names.marked_count(), 2);
    assert!(marked.iter().any(|key| &**key == "http_method"), "{marked:?}");
    assert!(
        marked.iter().any(|key| &**key == "job"),
        "client_job is the first in the order of keys: {marked:?}"
    );
}

#[test]
fn names_that_come_and_go_are_forgotten_in_the_order_they_went_and_no_others() {
    let mut names = Names::default();
    Task(&mut names, "quiet.1").comes(&counter("a.b"), 0).goes(&counter("a.b"), 0);
    Task(&mut names, "loud.1").comes(&counter("here"), 0);
    for n in 0..AT_REST as u64 + 50 {
        let series = counter(&format!("n{n}"));
        Task(&mut names, "loud.1").comes(&series, n / 100).goes(&series, n / 100);
    }
    let of = |task| &names.workloads[&SeriesIdentity::from_origin(&origin(task), Level::Low)];
    assert_eq!((of("loud.1").resting, of("quiet.1").resting), (AT_REST, 1));
    assert!(of("loud.1").at_rest.len() <= 2 * AT_REST + 65);
    let has = |name: &str| {
        let name = Name { kind: NameKind::Metric(MetricType::Counter), text: name.into() };
        of("loud.1").claims.contains_key(&name)
    };
    assert_eq!([has("here"), has("n49"), has("n50")], [true, false, true]);
    assert_eq!(of("loud.1").taken[0].len(), AT_REST + 1, "what is forgotten has claimed nothing");
}

#[test]
fn what_is_followed_change_by_change_is_what_there_is() {
    let mut names = Names::default();
    let (mut place, mut copy) = (u64::MAX, Names::default());
    let mut follow = |names: &Names, copy: &mut Names| {
        let new = names.changes_after(place).into_changes();
        place = new.next;
        copy.restore_changes(new.changes, at(0));
        new.whole
    };
    Task(&mut names, "web.1").comes(&counter("a.b"), 0).comes(&counter("a_b"), 0);
    assert!(follow(&names, &mut copy), "at first it is everything");
    Task(&mut names, "web.1").comes(&counter("a-b"), 10).goes(&counter("a_b"), 10);
    assert!(!follow(&names, &mut copy));
    Task(&mut names, "web.1").comes(&counter("c"), 2 * DAY);
    assert!(!follow(&names, &mut copy));
    for name in ["a.b", "a-b", "c"] {
        assert_eq!(shown(&copy, "web.1", name), shown(&names, "web.1", name));
    }
    let sorted = |names: &Names| {
        let mut whole: Vec<_> = names
            .changes_after(u64::MAX)
            .into_changes()
            .changes
            .into_iter()
            .map(|change| format!("{change:?}"))
            .collect();
        whole.sort_unstable();
        whole
    };
    assert_eq!(sorted(&copy), sorted(&names));
    for n in 0..=FOLLOWED {
        names.push_change(NameChange {
            workload: SeriesIdentity::from_origin(&origin("web.1"), Level::Low),
            name: Name { kind: NameKind::Label, text: format!("n{n}").into() },
            now: NameState::Forgotten,
        });
    }
    assert!(names.changes_after(place).into_changes().whole, "who has missed some gets everything");
}

#[test]
fn a_name_that_imitates_a_mark_does_not_take_it() {
    let mut names = Names::default();
    Task(&mut names, "web.1").comes(&counter("a.b"), 0).comes(&counter("a_b"), 0);
    let marked = shown(&names, "web.1", "a_b")[0].clone();
    let imitation = marked.strip_suffix("_total").unwrap().to_owned();
    Task(&mut names, "web.1").comes(&counter(&imitation), 10);
    assert_ne!(shown(&names, "web.1", &imitation)[0], marked);
    // And the other way round, where the imitation was there first.
    let mut names = Names::default();
    Task(&mut names, "web.1")
        .comes(&counter(&imitation), 0)
        .comes(&counter("a.b"), 0)
        .comes(&counter("a_b"), 0);
    assert_eq!(shown(&names, "web.1", &imitation)[0], marked);
    assert_ne!(shown(&names, "web.1", "a_b")[0], marked);
}

#[test]
fn a_name_rests_when_the_last_of_its_series_has_gone() {
    let mut names = Names::default();
    let [one, two] = ["a", "b"].map(|tag| series("hits", MetricType::Counter, &[tag]));
    let both = [Arc::clone(&one), Arc::clone(&two)];
    names.update_series(Changed::from_series(&origin("web.1"), both.iter(), std::iter::empty()), Some(at(0)));
    let resting =
        |names: &Names| names.workloads[&SeriesIdentity::from_origin(&origin("web.1"), Level::Low)].resting;
    Task(&mut names, "web.1").goes(&one, 10);
    assert_eq!((resting(&names), names.at_rest), (1, 1), "the tag a");
    Task(&mut names, "web.1").goes(&two, 20);
    assert_eq!((resting(&names), names.at_rest), (3, 3));
    Task(&mut names, "web.1").comes(&two, 30);
    assert_eq!((resting(&names), names.at_rest), (1, 1));
}

#[test]
fn a_workload_whose_containers_come_back_one_by_one_keeps_every_name() {
    let mut names = Names::default();
    let all: Vec<_> = (0..AT_REST as u64 + 50).map(|n| counter(&format!("n{n}"))).collect();
    for series in &all {
        Task(&mut names, "web.1").comes(series, 0);
    }
    let mut copy = Names::default();
    copy.restore_changes(names.changes_after(u64::MAX).into_changes().changes, at(0));
    for half in all.chunks(all.len() / 2) {
        copy.update_series_unlimited(
            Changed::from_series(&origin("web.1"), half.iter(), std::iter::empty()),
            Some(at(1)),
        );
    }
    let workload = SeriesIdentity::from_origin(&origin("web.1"), Level::Low);
    assert_eq!(copy.workloads[&workload].claims.len(), all.len());
    assert_eq!(copy.workloads[&workload].resting, 0);
}

#[test]
fn names_beyond_the_nodes_limit_are_forgotten_of_the_workloads_with_the_most() {
    let mut names = Names::default();
    Task(&mut names, "quiet.1").comes(&counter("a.b"), 0).goes(&counter("a.b"), 0);
    for n in 0..300 {
        let task = ["loud.1", "louder.1", "louder.2"][n % 3];
        let series = counter(&format!("n{n}"));
        Task(&mut names, task).comes(&series, 1).goes(&series, 1);
    }
    let resting = |names: &Names, task| {
        names.workloads[&SeriesIdentity::from_origin(&origin(task), Level::Low)].resting
    };
    assert_eq!(["quiet.1", "loud.1", "louder.1"].map(|task| resting(&names, task)), [1, 100, 200]);
    names.set_limit(100);
    assert_eq!(["quiet.1", "loud.1", "louder.1"].map(|task| resting(&names, task)), [1, 44, 44]);
    Task(&mut names, "loud.1").comes(&counter("one.more"), 2).goes(&counter("one.more"), 2);
    assert_eq!((names.at_rest, names.bytes()), (90, names.recount_bytes()));
}

#[test]
fn more_workloads_than_names_that_may_be_remembered_keep_the_latest() {
    let mut names = Names::default();
    names.set_limit(10);
    for n in 0..40 {
        let task = format!("job{n}.1");
        Task(&mut names, &task).comes(&counter("done"), n).goes(&counter("done"), n);
    }
    assert!(names.at_rest <= 10, "{}", names.at_rest);
    let has = |n| {
        names.workloads.contains_key(&SeriesIdentity::from_origin(&origin(&format!("job{n}.1")), Level::Low))
    };
    assert!(has(39) && has(35) && !has(20), "{:?}", names.at_rest);
    assert_eq!(names.bytes(), names.recount_bytes());
}
