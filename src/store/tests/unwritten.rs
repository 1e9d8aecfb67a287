//! Windows that leave the store before the window log has written them are held back for it.

use super::*;

/// A store that keeps one window of each of two containers, after `windows` windows of one record each.
fn node(windows: u64) -> Node {
    let mut node = Node::new(2, 1);
    for window in 0..windows {
        for container in 0..2 {
            node.send(container, window * 10 + 1, "a:1|c");
        }
    }
    node.roll(windows * 10);
    node
}

fn places(node: &Node, after: u64) -> Vec<u64> {
    let WindowsToWrite { windows, end } = node.store.windows_to_write(after);
    assert_eq!(end, node.store.end_cursor().seq);
    windows.iter().map(|published| published.first_seq()).collect()
}

#[test]
fn without_a_log_nothing_is_held_back_and_with_one_until_it_is_written() {
    assert_eq!((places(&node(5), 0), node(5).store.written_place()), (vec![9, 10], None));
    let mut node = node(0);
    node.store.note_written(0);
    for window in 0..5 {
        for container in 0..2 {
            node.send(container, window * 10 + 1, "a:1|c");
        }
    }
    node.roll(50);
    node.store.forget_container(Allocation(1));
    assert!(node.store.find_history(Allocation(1)).is_none());
    assert_eq!(places(&node, 0), (1..=10).collect::<Vec<_>>());
    assert_eq!(places(&node, 7), [8, 9, 10]);
    assert_eq!(node.store.opened_at(Allocation(1)), Some(moment(0).wall), "for its description");
    assert_eq!(node.store.held_bytes(), node.store.recount_held_bytes());
    node.store.note_written(7);
    assert_eq!(places(&node, 0), [8, 9, 10]);
    node.store.note_written(10);
    assert_eq!((places(&node, 0), node.store.opened_at(Allocation(1))), (vec![9], None));
    assert_eq!(node.store.held_bytes(), node.store.recount_held_bytes());
    // The writer ends.
    node.store.note_written(u64::MAX);
    node.send(0, 51, "a:1|c").send(0, 61, "a:1|c").roll(70);
    assert_eq!(places(&node, 10), [12]);
}

#[test]
fn what_is_held_back_is_bounded_and_the_oldest_goes_first() {
    let mut node = node(0);
    node.store.note_written(0);
    let of_one = {
        node.send(0, 1, "a:1|c").send(0, 11, "a:1|c").roll(20);
        let before = node.store.held_bytes();
        assert_eq!(places(&node, 0), [1, 2]);
        node.store.note_written(1);
        before - node.store.held_bytes()
    };
    assert!(of_one > 0);
    node.store.hold_back_at_most(3 * of_one);
    for window in 2..10 {
        node.send(0, window * 10 + 1, "a:1|c");
    }
    node.roll(100);
    assert_eq!(places(&node, 0), [7, 8, 9, 10], "three are held back, and one is kept");
    assert_eq!(node.store.held_bytes(), node.store.recount_held_bytes());
}

#[test]
fn a_container_is_known_as_long_as_one_of_its_windows_is_held_back() {
    let mut node = node(0);
    node.store.note_written(0);
    for window in 0..3 {
        (0..2).for_each(|container| {
            node.send(container, window * 10 + 1, "a:1|c");
        });
    }
    node.roll(30);
    (0..2).for_each(|n| node.store.forget_container(Allocation(n)));
    let known = |node: &Node| [0, 1].map(|n| node.store.opened_at(Allocation(n)).is_some());
    assert_eq!((places(&node, 0).len(), known(&node)), (6, [true, true]));
    node.store.note_written(5);
    assert_eq!((places(&node, 0), known(&node)), (vec![6], [false, true]));
    // Beyond the limit, too.
    node.store.open(Allocation(0), origin("c0"), moment(30).wall);
    node.store.hold_back_at_most(0);
    node.send(0, 31, "a:1|c").send(0, 41, "a:1|c").roll(50);
    node.store.forget_container(Allocation(0));
    assert_eq!((places(&node, 0), known(&node)), (vec![], [false, false]));
}
