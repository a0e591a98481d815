//! A simulated cluster around the pure function: any order of events, chaos included, ends clean.

mod world;

use proptest::prelude::*;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::action::Action;
use super::next::{self, Verdict};
use super::view::{Observed, RepositoryView, SnapshotView, SourceView};
use crate::kube::api::Phase;
use crate::kube::api::backup::{BaseSnapshotPolicy, DeletionPolicy};
use crate::kube::api::conditions::{self as kinds, Reason};
use crate::kube::api::{PodVolumeBackup, PodVolumeBackupStatus, names};
use crate::kube::controller::conditions;
use crate::kube::controller::settings::Deadlines;
use world::{Event, Shape, World};

/// What the API server answers in whatever order, and what users and bad luck do.
fn events() -> impl Strategy<Value = Vec<(Event, u8)>> {
    let event = prop_oneof![
        6 => Just(Event::Look),
        8 => Just(Event::Progress),
        1 => Just(Event::Time),
        1 => Just(Event::AgentFails),
        1 => Just(Event::AgentInterrupted),
        1 => Just(Event::AgentGone),
        1 => Just(Event::AgentBack),
        1 => Just(Event::HolderEvicted),
        1 => Just(Event::DriverNotes),
        1 => Just(Event::AgentDeaf),
        1 => Just(Event::AgentHears),
        1 => Just(Event::Away),
    ];
    proptest::collection::vec((event, any::<u8>()), 0..120)
}

fn shapes() -> impl Strategy<Value = Shape> {
    (
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        0_u8..3,
        any::<bool>(),
    )
        .prop_map(
            |(user_snapshot, old_base, class_retains, base, delete)| Shape {
                user_snapshot,
                old_base,
                class_retains,
                base: [
                    BaseSnapshotPolicy::Auto,
                    BaseSnapshotPolicy::Keep,
                    BaseSnapshotPolicy::Drop,
                ][usize::from(base)],
                deletion: if delete {
                    DeletionPolicy::Delete
                } else {
                    DeletionPolicy::Retain
                },
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// Whatever happened: once the world answers, a final phase is reached and nothing is left but a base.
    #[test]
    fn every_state_reaches_a_final_phase_and_leaves_nothing(shape in shapes(), events in events()) {
        let mut world = World::new(shape);
        for (event, luck) in events {
            world.happen(event, luck);
        }
        world.settle();
        prop_assert!(world.phase().is_terminal(), "{:?}: {:?}", world.phase(), world.message());
        world.assert_clean();
    }

    /// A cancel or deletion at any moment takes everything back, unless the point was committed before.
    #[test]
    fn a_cancel_at_any_moment_cleans_everything(
        shape in shapes(),
        before in events(),
        after in events(),
        delete in any::<bool>(),
    ) {
        let mut world = World::new(shape);
        for (event, luck) in before {
            world.happen(event, luck);
        }
        world.happen(if delete { Event::UserDeletes } else { Event::UserCancels }, 0);
        for (event, luck) in after {
            world.happen(event, luck);
        }
        world.settle();
        prop_assert!(world.gone() || world.phase().is_terminal(), "{:?}", world.message());
        prop_assert!(world.gone() == delete);
        world.assert_clean();
    }

    /// The user's VolumeSnapshot vanishes, or ours is deleted by somebody: the driver's snapshot does not leak.
    #[test]
    fn a_snapshot_that_is_deleted_under_us_does_not_leak(
        shape in shapes(),
        before in events(),
        after in events(),
    ) {
        let mut world = World::new(shape);
        for (event, luck) in before {
            world.happen(event, luck);
        }
        world.happen(Event::SnapshotDeletedByUser, 0);
        for (event, luck) in after {
            world.happen(event, luck);
        }
        world.settle();
        prop_assert!(world.phase().is_terminal(), "{:?}: {:?}", world.phase(), world.message());
        world.assert_clean();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// A driver that is gone holds up no namespace: the backup ends, and says what it leaves.
    #[test]
    fn a_driver_that_never_deletes_ends_with_names(
        shape in shapes(),
        before in events(),
        delete in any::<bool>(),
        luck in any::<u8>(),
        after in events(),
    ) {
        let mut world = World::new(shape);
        for (event, luck) in before {
            world.happen(event, luck);
        }
        world.happen(Event::DriverGone, luck);
        if delete {
            world.happen(Event::UserDeletes, 0);
        }
        for (event, luck) in after {
            world.happen(event, luck);
        }
        world.settle();
        prop_assert!(world.gone() || world.phase().is_terminal(), "{:?}", world.message());
        prop_assert!(world.gone() == delete, "the object itself can go");
        world.assert_left_behind();
    }
}

#[test]
fn what_is_left_is_a_condition_and_an_event() {
    let mut world = World::new(plain());
    world.until(|world| world.phase() == Phase::InProgress);
    world.happen(Event::DriverGone, 1);
    world.settle();
    assert_eq!(world.phase(), Phase::Completed, "the point is committed");
    let status = world.status();
    assert_eq!(
        conditions::reason(&status.conditions, kinds::CLEANED),
        Some(Reason::LeftBehind)
    );
    let message = world.message().unwrap();
    assert!(message.contains("persistentvolume/pv"), "{message}");
    assert!(message.contains("the point is stored"), "{message}");
    world.assert_left_behind();
}

fn plain() -> Shape {
    Shape {
        user_snapshot: false,
        old_base: true,
        class_retains: false,
        base: BaseSnapshotPolicy::Auto,
        deletion: DeletionPolicy::Retain,
    }
}

#[test]
fn an_undisturbed_backup_completes_and_exchanges_the_base() {
    let mut world = World::new(plain());
    world.settle();
    assert_eq!(world.phase(), Phase::Completed, "{:?}", world.message());
    assert_eq!(next::verdict(world.status()), Some(Verdict::Succeeded));
    assert_eq!(world.base_handle().as_deref(), Some("s-new"));
    assert!(!world.has_backend("s-old"));
    world.assert_clean();
}

#[test]
fn a_change_id_goes_from_the_first_snapshot_to_the_base() {
    let mut early = World::new(plain());
    early.until(World::has_snapshot);
    early.happen(Event::DriverNotes, 0);
    let mut late = World::new(plain());
    late.until(World::has_copy);
    assert_eq!(late.copied_change_id(), None);
    late.happen(Event::DriverNotes, 0);
    for mut world in [early, late] {
        world.until(|world| world.has_order());
        let id = Some("change of s-new".to_owned());
        assert_eq!(world.copied_change_id(), id);
        world.settle();
        assert_eq!(world.phase(), Phase::Completed, "{:?}", world.message());
        assert_eq!(world.base_change_id(), id);
        world.assert_clean();
    }
}

#[test]
fn a_failed_backup_keeps_the_old_base() {
    let mut world = World::new(plain());
    world.until(|world| world.has_order());
    world.happen(Event::AgentFails, 0);
    world.settle();
    assert_eq!(world.phase(), Phase::Failed);
    assert_eq!(world.base_handle().as_deref(), Some("s-old"));
    assert!(!world.has_backend("s-new"));
    world.assert_clean();
}

#[test]
fn work_moves_when_the_agent_is_gone() {
    let mut world = World::new(plain());
    world.until(|world| world.phase() == Phase::InProgress);
    world.happen(Event::AgentGone, 0);
    world.happen(Event::Look, 0);
    assert_eq!(
        conditions::reason(&world.status().conditions, kinds::DEVICE_READY),
        Some(Reason::AgentLost)
    );
    world.happen(Event::AgentBack, 0);
    world.settle();
    assert_eq!(world.phase(), Phase::Completed, "{:?}", world.message());
    assert!(world.status().order.as_ref().unwrap().attempt >= 2);
}

#[test]
fn a_transfer_that_stands_still_is_stopped_with_a_reason() {
    let mut world = World::new(plain());
    world.until(|world| world.phase() == Phase::InProgress);
    world.freeze_agent();
    world.settle();
    assert_eq!(world.phase(), Phase::Failed, "{:?}", world.message());
    assert_eq!(
        conditions::reason(&world.status().conditions, kinds::SUCCEEDED),
        Some(Reason::NoProgress)
    );
    world.assert_clean();
}

#[test]
fn a_volume_that_was_there_before_is_neither_read_nor_lost() {
    let mut world = World::new(plain());
    world.let_others_be_bound();
    world.settle();
    assert_eq!(world.phase(), Phase::Failed, "{:?}", world.message());
    assert_eq!(
        conditions::reason(&world.status().conditions, kinds::SUCCEEDED),
        Some(Reason::ExposeFailed)
    );
    assert!(!world.has_order(), "nothing may be read");
    assert_eq!(world.base_handle().as_deref(), Some("s-old"));
    world.assert_clean();
}

#[test]
fn an_order_that_waits_for_a_slot_of_its_agent_is_not_given_up() {
    let mut world = World::new(plain());
    world.until(World::has_order);
    for _ in 0..30 {
        world.happen(Event::Time, 19);
        world.happen(Event::Look, 0);
    }
    assert!(!world.phase().is_terminal(), "{:?}", world.message());
    assert!(
        world.message().is_some_and(|text| text.contains("slot")),
        "{:?}",
        world.message()
    );
    world.settle();
    assert_eq!(world.phase(), Phase::Completed, "{:?}", world.message());
}

#[test]
fn an_order_that_a_ready_agent_never_takes_is_given_again() {
    let mut world = World::new(plain());
    world.until(World::has_order);
    world.happen(Event::AgentDeaf, 0);
    for _ in 0..3 {
        world.happen(Event::Look, 0);
        world.happen(Event::Time, 14);
        if world.is_given_up() {
            break;
        }
    }
    assert!(world.is_given_up(), "{:?}", world.message());
    let message = world.message().unwrap();
    assert!(message.contains("did not take the order"), "{message}");
    world.settle();
    assert_eq!(world.phase(), Phase::Completed, "{:?}", world.message());
    assert_eq!(world.status().order.as_ref().unwrap().attempt, 2);
    world.assert_clean();
}

#[test]
fn agents_that_never_take_an_order_end_it_with_the_reason() {
    let mut world = World::new(plain());
    world.happen(Event::AgentDeaf, 0);
    world.rest();
    assert_eq!(world.phase(), Phase::Failed, "{:?}", world.message());
    let message = world.message().unwrap();
    assert!(message.contains("did not take the order"), "{message}");
    assert_eq!(world.base_handle().as_deref(), Some("s-old"));
    world.assert_clean();
}

#[test]
fn a_controller_that_was_away_keeps_the_base() {
    let mut world = World::new(plain());
    world.until(|world| {
        world.has_order() && next::verdict(world.status()) == Some(Verdict::Succeeded)
    });
    world.happen(Event::Away, 0);
    world.settle();
    assert_eq!(world.phase(), Phase::Completed, "{:?}", world.message());
    assert_eq!(world.base_handle().as_deref(), Some("s-new"));
    let left = conditions::reason(&world.status().conditions, kinds::CLEANED);
    assert_eq!(left, None);
    world.assert_clean();
}

#[test]
fn a_store_that_is_away_for_minutes_does_not_use_up_the_attempts() {
    let mut world = World::new(plain());
    world.until(|world| world.phase() == Phase::InProgress);
    for _ in 0..20 {
        world.happen(Event::AgentInterrupted, 0);
        world.happen(Event::Look, 0);
    }
    assert!(!world.phase().is_terminal(), "{:?}", world.message());
    let attempt = world.status().order.as_ref().unwrap().attempt;
    assert!(attempt <= 4, "ordered {attempt} times without a pause");
    world.happen(Event::Time, 9);
    world.happen(Event::Look, 0);
    assert_eq!(world.status().order.as_ref().unwrap().attempt, attempt + 1);
    world.settle();
    assert_eq!(world.phase(), Phase::Completed, "{:?}", world.message());
}

/// What another look may find around a backup that was just created.
fn around() -> impl Strategy<Value = Observed> {
    let repository = prop_oneof![
        Just(RepositoryView::Missing),
        Just(RepositoryView::Ready),
        Just(RepositoryView::NotAllowed),
        Just(RepositoryView::NotReady("away".to_owned())),
    ];
    let source = prop_oneof![
        Just(SourceView::Unseen),
        Just(SourceView::Missing("none".to_owned())),
        Just(SourceView::Found(Box::default())),
    ];
    (repository, source, any::<bool>(), any::<bool>()).prop_map(
        |(repository, source, going_away, snapshot)| Observed {
            repository,
            source,
            going_away,
            snapshot: snapshot.then(|| SnapshotView {
                ready: true,
                ours: true,
                ..SnapshotView::default()
            }),
            ..Observed::default()
        },
    )
}

proptest! {
    /// A backup that stands for a point of the repository is never run, whatever it asks for and whatever there is: without a status it
    /// waits for one, and goes in the end.
    #[test]
    fn what_was_made_elsewhere_is_never_run(
        seen in around(),
        whose in prop_oneof![Just("own"), Just("granted"), Just("")],
        said_new in any::<bool>(),
        finalizer in any::<bool>(),
        cancel in proptest::option::of(any::<bool>()),
        deleting in any::<bool>(),
        age in 0_i64..100_000,
    ) {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut backup: PodVolumeBackup = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "point-1", "namespace": "n", "labels": {(names::SYNCED): whose}},
            "spec": {"source": {"persistentVolumeClaim": {"name": "data"}}, "repositoryRef": {"name": "r"}},
        })).unwrap();
        backup.metadata.creation_timestamp = Some(Time(at(0)));
        backup.metadata.deletion_timestamp = deleting.then(|| Time(at(1)));
        backup.metadata.finalizers = finalizer.then(|| vec![names::FINALIZER.to_owned()]);
        backup.spec.cancel = cancel;
        backup.status = said_new.then(|| PodVolumeBackupStatus { phase: Some(Phase::New), ..PodVolumeBackupStatus::default() });
        let limits = Deadlines::default();
        let decided = next::next(&backup, &seen, &limits, at(age));
        prop_assert_eq!(decided.status, backup.status.clone().unwrap_or_default());
        let mut expected = Vec::new();
        if finalizer {
            expected.push(Action::Finalizer(false));
        }
        if age >= i64::try_from(limits.snapshot.as_secs()).unwrap() {
            expected.push(Action::DeleteSelf);
        }
        prop_assert_eq!(decided.actions, expected);
    }

    /// With the policy Delete the point goes with a backup of the namespace's own, and never with one that a grant shows.
    #[test]
    fn a_granted_point_is_not_for_the_namespace_to_forget(granted in any::<bool>(), deleting in any::<bool>()) {
        let whose = if granted { names::SYNCED_GRANTED } else { names::SYNCED_OWN };
        let mut backup: PodVolumeBackup = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "point-1", "namespace": "n", "labels": {(names::SYNCED): whose}},
            "spec": {
                "source": {"persistentVolumeClaim": {"name": "data"}}, "repositoryRef": {"name": "r"}, "deletionPolicy": "Delete",
            },
            "status": {"phase": "Completed", "point": {"id": "1", "repositoryID": "r"}},
        })).unwrap();
        if deleting {
            backup.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
            backup.metadata.finalizers = Some(vec![names::FINALIZER.to_owned()]);
        }
        let seen = Observed { repository: RepositoryView::Ready, ..Observed::default() };
        let decided = next::next(&backup, &seen, &Deadlines::default(), Timestamp::UNIX_EPOCH);
        let forgets = decided.actions.iter().any(|action| matches!(action, Action::Forget { .. }));
        prop_assert_eq!(forgets, deleting && !granted);
        let holds = decided.actions.contains(&Action::Finalizer(true));
        prop_assert_eq!(holds, !deleting && !granted);
    }
}
