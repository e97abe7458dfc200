use super::*;

#[test]
fn questions_do_not_wait_for_levels() {
    let (outbox, events) = unbounded();
    let engine = engine(outbox).unwrap();
    let (go_on, held) = unbounded::<()>();
    engine.levels.submit(move || {
        let _ = held.recv();
    });
    let soon = Duration::from_secs(20);
    engine.handle(Command::Levels(Growth::Growing, false, Vec::new()));
    for question in
        [Command::Find(Probe::Like(0)), Command::Labels, Command::ShowFit("k8".to_owned()), Command::ListStudies]
    {
        engine.handle(question);
        // Nothing is open, which is an answer.
        let answer = events.recv_timeout(soon).unwrap();
        assert!(matches!(answer, Event::Refused(_) | Event::Studies(_)), "{answer:?}");
    }
    go_on.send(()).unwrap();
    assert!(matches!(events.recv_timeout(soon).unwrap(), Event::Started(Job::Levels)));
    assert!(matches!(events.recv_timeout(soon).unwrap(), Event::Failed(Job::Levels, _)));
    engine.shutdown();
}
