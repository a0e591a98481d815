//! Restores in a cluster whose controllers act in any order, while Snaphaul's dies between any two actions.
//!
//! Owns: what must hold in the end. `world` has the cluster, `play` one run.
//!
//! Each run is a list of numbers: proptest shortens it to the fewest steps that fail.

mod play;
mod world;

use proptest::prelude::*;

use self::play::{Ending, Fault, Play};
use self::world::{CLAIM, SHOP, SYSTEM, World, handle_of};
use super::volume;
use crate::kube::api::Phase;
use crate::kube::api::names::{KEPT_OF, OWNER_UID};
use crate::kube::api::restore::{HandoverStep, QuickPolicy, QuickState, RestoreMode};

/// Everything of the restore is gone, and what the user had is there.
fn nothing_left(world: &World) {
    assert!(world.working_claim().is_none(), "{}", world.story());
    assert!(world.holder.is_none(), "{}", world.story());
    assert!(world.attached.is_empty(), "{}", world.story());
    let kept: Vec<&String> = world.disks.keys().collect();
    let expected: Vec<&String> = world
        .old_disk
        .iter()
        .filter(|old| world.disks.contains_key(*old))
        .collect();
    assert_eq!(kept, expected, "{}", world.story());
    assert_eq!(world.volumes.len(), expected.len(), "{}", world.story());
    let ours = world.intermediate();
    for claim in world.claims.values() {
        let named = claim.spec.as_ref().unwrap().volume_name.as_ref();
        assert_ne!(named, Some(&ours), "{}", world.story());
    }
}

/// The old claim is gone and the new one could not be had: the filled volume stays for a person, and for nobody else.
fn kept(world: &World) {
    assert_eq!(world.restore.spec.mode, RestoreMode::Replace);
    assert!(world.working_claim().is_none(), "{}", world.story());
    assert!(world.holder.is_none(), "{}", world.story());
    let kept: Vec<_> = world
        .volumes
        .values()
        .filter(|volume| Some(handle_of(volume)) != world.old_disk)
        .collect();
    let [kept] = kept[..] else {
        panic!("{} volumes\n{}", kept.len(), world.story());
    };
    assert_eq!(
        world.disks.get(&handle_of(kept)),
        Some(&true),
        "{}",
        world.story()
    );
    assert_eq!(
        volume::reclaim_policy(kept),
        volume::RETAIN,
        "{}",
        world.story()
    );
    let place = kept.spec.as_ref().unwrap().claim_ref.as_ref().unwrap();
    assert_eq!(place.namespace.as_deref(), Some(SHOP));
    assert_eq!(place.name.as_ref(), Some(&world.intermediate()));
    assert_eq!(place.uid, None);
    let labels = kept.metadata.labels.clone().unwrap_or_default();
    assert!(labels.contains_key(KEPT_OF), "{}", world.story());
}

/// The user's claim is bound to the filled volume, which has the policy of its class.
fn handed_over(world: &World) {
    let claim = world
        .target()
        .unwrap_or_else(|| panic!("{}", world.story()));
    let name = claim.spec.as_ref().unwrap().volume_name.clone().unwrap();
    let volume = &world.volumes[&name];
    assert!(volume::is_bound(volume, claim), "{}", world.story());
    assert_eq!(
        world.disks.get(&handle_of(volume)),
        Some(&true),
        "{}",
        world.story()
    );
    assert!(
        world.working_claim().is_none() && world.holder.is_none(),
        "{}",
        world.story()
    );
    assert!(world.attached.is_empty(), "{}", world.story());
    if world.restore.spec.mode == RestoreMode::InPlace {
        assert_eq!(world.disks.len(), 1);
    } else {
        assert_eq!(name, world.intermediate());
        assert_eq!(
            volume::reclaim_policy(volume),
            world.class_policy,
            "{}",
            world.story()
        );
        assert_eq!(
            volume.spec.as_ref().unwrap().volume_mode.as_deref(),
            Some("Filesystem")
        );
    }
    assert_eq!(world.volumes.len(), world.disks.len(), "{}", world.story());
}

fn ended(world: &World, ending: Ending) {
    let phase = world
        .restore
        .status
        .as_ref()
        .and_then(|status| status.phase);
    let finalizers = world
        .restore
        .metadata
        .finalizers
        .clone()
        .unwrap_or_default();
    assert!(finalizers.is_empty(), "{}", world.story());
    assert!(!world.copy, "{}", world.story());
    match phase {
        Some(Phase::Completed) if world.user_deleted_claim => {}
        Some(Phase::Completed) => handed_over(world),
        Some(Phase::Failed) if world.says("stays on PersistentVolume") => kept(world),
        Some(Phase::Canceled | Phase::Failed) => {
            nothing_left(world);
            if world.restore.spec.mode == RestoreMode::InPlace && !world.user_deleted_claim {
                assert!(world.target().is_some(), "{}", world.story());
            }
        }
        // Deleted before anything was begun.
        _ => {
            assert_eq!(ending, Ending::Any, "{}", world.story());
            assert!(
                world.restore.metadata.deletion_timestamp.is_some(),
                "{}",
                world.story()
            );
            nothing_left(world);
        }
    }
    if ending == Ending::Completed {
        assert_eq!(phase, Some(Phase::Completed), "{}", world.story());
    }
    // A claim of somebody else is never touched.
    for claim in world
        .claims
        .values()
        .filter(|claim| claim.metadata.labels.is_some())
    {
        if claim.metadata.namespace.as_deref() == Some(SHOP) {
            assert!(
                claim.metadata.deletion_timestamp.is_none(),
                "{}",
                world.story()
            );
            assert_eq!(claim.metadata.name.as_deref(), Some(CLAIM));
        }
    }
    assert!(
        world
            .claims
            .keys()
            .all(|(namespace, _)| namespace != SYSTEM)
    );
}

/// It has ended although its driver never did anything more: all storage has a name that stays, and the message says what is left.
fn left_behind(world: &World) {
    let status = world.restore.status.clone().unwrap_or_default();
    let phase = status.phase.unwrap_or_default();
    let deleted = world.restore.metadata.deletion_timestamp.is_some();
    assert!(phase.is_terminal() || deleted, "{}", world.story());
    let finalizers = world.restore.metadata.finalizers.clone();
    assert!(
        finalizers.unwrap_or_default().is_empty(),
        "{}",
        world.story()
    );
    let message = status.message.unwrap_or_default();
    for handle in world.disks.keys() {
        let mut named = world
            .volumes
            .values()
            .filter(|volume| handle_of(volume) == *handle);
        let stays = |volume: &&k8s_openapi::api::core::v1::PersistentVolume| {
            volume.metadata.deletion_timestamp.is_none()
                || volume::reclaim_policy(volume) == volume::DELETE
        };
        assert!(
            named.clone().any(|volume| stays(&volume)),
            "{}",
            world.story()
        );
        if phase != Phase::Completed && !world.old_disk.iter().any(|old| old == handle) {
            let told = named.any(|volume| message.contains(volume.metadata.name.as_ref().unwrap()));
            assert!(told, "nobody is told of {handle}\n{}", world.story());
        }
    }
    if phase == Phase::Completed {
        return;
    }
    // The sweep finds by labels, or by whose the volume says it is.
    for ((namespace, _), claim) in &world.claims {
        let labels = claim.metadata.labels.clone().unwrap_or_default();
        assert!(
            namespace != SYSTEM || labels.contains_key(OWNER_UID),
            "{}",
            world.story()
        );
    }
}

fn modes() -> impl Strategy<Value = (RestoreMode, bool)> {
    prop_oneof![
        Just((RestoreMode::NewClaim, false)),
        Just((RestoreMode::NewClaim, true)),
        Just((RestoreMode::Replace, false)),
        Just((RestoreMode::InPlace, false)),
    ]
}

fn run(
    (mode, asking): (RestoreMode, bool),
    policy: &str,
    faults: &[Fault],
    steps: &[u64],
) -> World {
    played(Play::new(mode, asking, policy, faults), steps)
}

fn played(mut play: Play, steps: &[u64]) -> World {
    for step in steps {
        play.step(*step);
    }
    play.settle();
    play.world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_restore_that_nobody_disturbs_completes_whatever_the_order_and_the_crashes(
        mode in modes(),
        policy in prop_oneof![Just("Delete"), Just("Retain")],
        steps in prop::collection::vec(any::<u64>(), 0..400),
    ) {
        let world = run(mode, policy, &[Fault::Crash], &steps);
        ended(&world, Ending::Completed);
    }

    #[test]
    fn a_restore_that_is_cancelled_or_fails_leaves_nothing_and_loses_nothing(
        mode in modes(),
        policy in prop_oneof![Just("Delete"), Just("Retain")],
        fault in prop_oneof![
            Just(Fault::Cancel), Just(Fault::Delete), Just(Fault::TransferFails),
            Just(Fault::ForeignClaim), Just(Fault::ClaimDeleted), Just(Fault::Evicted),
            Just(Fault::AgentLost), Just(Fault::Late), Just(Fault::PodUsesClaim), Just(Fault::Deaf), Just(Fault::Away),
        ],
        steps in prop::collection::vec(any::<u64>(), 0..400),
    ) {
        let world = run(mode, policy, &[Fault::Crash, fault], &steps);
        ended(&world, Ending::Any);
    }

    #[test]
    fn any_mixture_of_faults_ends(
        mode in modes(),
        policy in prop_oneof![Just("Delete"), Just("Retain")],
        steps in prop::collection::vec(any::<u64>(), 0..600),
    ) {
        let world = run(mode, policy, Fault::ALL, &steps);
        ended(&world, Ending::Any);
    }

    #[test]
    fn a_driver_that_is_gone_holds_no_restore_for_ever(
        mode in modes(),
        policy in prop_oneof![Just("Delete"), Just("Retain")],
        fault in prop_oneof![
            Just(Fault::Cancel), Just(Fault::Delete), Just(Fault::TransferFails), Just(Fault::ClaimDeleted), Just(Fault::Late),
        ],
        before in prop::collection::vec(any::<u64>(), 0..300),
        steps in prop::collection::vec(any::<u64>(), 0..200),
    ) {
        let (mode, asking) = mode;
        let mut play = Play::new(mode, asking, policy, &[Fault::Crash, fault]);
        for step in before {
            play.step(step);
        }
        play.world.driver_gone = true;
        for step in steps {
            play.step(step);
        }
        play.settle();
        left_behind(&play.world);
    }

    #[test]
    fn a_restore_whose_node_dies_goes_on_elsewhere(
        mode in modes(),
        policy in prop_oneof![Just("Delete"), Just("Retain")],
        steps in prop::collection::vec(any::<u64>(), 0..400),
    ) {
        let world = run(mode, policy, &[Fault::Crash, Fault::NodeDies], &steps);
        ended(&world, Ending::Completed);
    }
}

fn quick(asking: bool, policy: &str, faults: &[Fault], steps: &[u64]) -> World {
    let mut play = Play::new(RestoreMode::NewClaim, asking, policy, faults);
    play.world.base = true;
    play.world.restore.spec.quick_policy = QuickPolicy::Auto;
    played(play, steps)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Nothing is transferred where the volume can be made of the base, and something is where that fails.
    #[test]
    fn a_quick_restore_completes_with_or_without_its_base(
        asking in any::<bool>(),
        policy in prop_oneof![Just("Delete"), Just("Retain")],
        goes in any::<bool>(),
        steps in prop::collection::vec(any::<u64>(), 0..300),
    ) {
        let faults: &[Fault] = if goes { &[Fault::Crash, Fault::BaseGoes] } else { &[Fault::Crash] };
        let world = quick(asking, policy, faults, &steps);
        ended(&world, Ending::Completed);
        let ordered = world.restore.status.as_ref().is_some_and(|status| status.order.is_some());
        let copied = world.quick() == Some(QuickState::Copied);
        prop_assert_eq!(copied, !ordered, "{}", world.story());
        prop_assert!(copied || goes || policy == "Retain", "{}", world.story());
        prop_assert!(!copied || policy == "Delete", "{}", world.story());
    }

    #[test]
    fn a_quick_restore_that_is_disturbed_leaves_nothing(
        asking in any::<bool>(),
        fault in prop_oneof![
            Just(Fault::Cancel), Just(Fault::Delete), Just(Fault::TransferFails), Just(Fault::ForeignClaim),
            Just(Fault::ClaimDeleted), Just(Fault::Late), Just(Fault::AgentLost),
        ],
        steps in prop::collection::vec(any::<u64>(), 0..300),
    ) {
        let world = quick(asking, "Delete", &[Fault::Crash, Fault::BaseGoes, fault], &steps);
        ended(&world, Ending::Any);
    }
}

#[test]
fn a_restore_that_a_ready_agent_never_takes_is_ordered_again_and_ends() {
    for (hears, phase) in [(true, Phase::Completed), (false, Phase::Failed)] {
        for mode in [
            RestoreMode::NewClaim,
            RestoreMode::Replace,
            RestoreMode::InPlace,
        ] {
            let mut play = Play::new(mode, false, "Delete", &[]);
            play.world.deaf = true;
            play.until(|world| world.open_attempt() == Some(2));
            if hears {
                play.settle();
            } else {
                play.rest();
            }
            ended(&play.world, Ending::Any);
            let status = play.world.restore.status.clone().unwrap();
            assert_eq!(status.phase, Some(phase), "{}", play.world.story());
            let message = status.message.unwrap_or_default();
            let told = message.contains("did not take the order");
            assert_eq!(told, !hears, "{message}");
        }
    }
}

/// Goes on until the hand-over is at this step, and changes what the status says of the volume.
fn at_step(
    play: &mut Play,
    step: HandoverStep,
    change: impl FnOnce(&mut crate::kube::api::restore::HandoverStatus),
) {
    let known = |world: &World| world.restore.status.as_ref()?.volume.clone();
    play.until_filled(|world| known(world).is_some_and(|known| known.step == step));
    let status = play.world.restore.status.as_mut().unwrap();
    change(status.volume.as_mut().unwrap());
    play.world.restore_version += 1;
}

#[test]
fn a_status_without_the_working_claim_is_taken_back_all_the_same() {
    let mut play = Play::new(RestoreMode::NewClaim, false, "Delete", &[]);
    at_step(&mut play, HandoverStep::Recreating, |known| {
        known.working_claim_uid = None;
    });
    play.until(|world| world.volumes.contains_key(&world.intermediate()));
    play.world.restore.spec.cancel = Some(true);
    play.settle();
    ended(&play.world, Ending::Any);
}

#[test]
fn a_status_without_the_new_claim_keeps_the_volume_for_a_person() {
    for with_record in [true, false] {
        let mut play = Play::new(RestoreMode::Replace, false, "Delete", &[]);
        at_step(&mut play, HandoverStep::Recreating, |known| {
            known.claim_uid = None;
            if !with_record {
                known.object = None;
            }
        });
        let old = play.world.old_disk.clone();
        let is_old = |volume: &_| Some(handle_of(volume)) == old;
        play.world.volumes.retain(|_, volume| is_old(volume));
        if !with_record {
            play.world
                .disks
                .retain(|handle, _| Some(handle) == old.as_ref());
        }
        play.settle();
        let status = play.world.restore.status.clone().unwrap();
        assert_eq!(status.phase, Some(Phase::Failed), "{}", play.world.story());
        if with_record {
            kept(&play.world);
        } else {
            let message = status.message.unwrap();
            assert!(message.contains("at its driver"), "{message}");
        }
    }
}

#[test]
fn a_controller_that_was_away_leaves_nothing_behind() {
    let mut play = Play::new(RestoreMode::NewClaim, false, "Delete", &[]);
    play.until(|world| world.open_attempt().is_some());
    play.world.restore.spec.cancel = Some(true);
    play.until(|world| super::next::gives_up(&world.restore));
    play.away();
    play.world.driver_gone = true;
    play.until(|world| world.holder.is_none());
    let phase = play.world.restore.status.as_ref().unwrap().phase;
    assert_eq!(phase, Some(Phase::Canceling), "{}", play.world.story());
    play.world.driver_gone = false;
    play.settle();
    ended(&play.world, Ending::Any);
}

#[test]
fn a_restore_whose_only_node_dies_fails_with_the_reason() {
    for mode in [
        RestoreMode::NewClaim,
        RestoreMode::Replace,
        RestoreMode::InPlace,
    ] {
        let mut play = Play::new(mode, false, "Delete", &[]);
        play.world.bound_to_node = true;
        play.until(|world| {
            let order = world
                .restore
                .status
                .as_ref()
                .and_then(|status| status.order.as_ref());
            order.is_some()
        });
        play.world.dead_node = Some("n1".to_owned());
        play.settle();
        ended(&play.world, Ending::Any);
        let status = play.world.restore.status.clone().unwrap();
        assert_eq!(status.phase, Some(Phase::Failed), "{}", play.world.story());
        let message = status.message.unwrap();
        assert!(
            message.contains("no node with an agent can reach the volume"),
            "{message}"
        );
    }
}
