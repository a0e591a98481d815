use proptest::prelude::*;

use super::*;
use crate::kube::api::repository::GrantSource;

const HERE: &str = "cluster-a";

/// A small world: few names, so that everything meets everything.
#[derive(Clone, Debug)]
struct World {
    mode: Sync,
    points: Vec<KnownPoint>,
    damaged: BTreeSet<String>,
    places: BTreeMap<String, Place>,
    grants: Vec<Grant>,
    existing: Vec<Existing>,
    offered: BTreeSet<String>,
    most: usize,
}

impl World {
    fn plan(&self) -> Plan {
        let held: BTreeSet<String> = self.points.iter().map(|point| point.id.clone()).collect();
        let held = held.union(&self.damaged).cloned().collect();
        plan(&Seen {
            mode: self.mode,
            cluster_uid: HERE,
            grants: &self.grants,
            offered: &self.offered,
            held: &held,
            points: &self.points,
            places: &self.places,
            existing: &self.existing,
            backups: &self.existing.iter().map(|one| one.uid.clone()).collect(),
            most: self.most,
        })
    }

    fn synced(&mut self, wanted: &Wanted) {
        self.existing.push(Existing {
            namespace: wanted.namespace.clone(),
            name: name_of(&wanted.point),
            uid: format!("made-{}-{}", wanted.namespace, wanted.point),
            synced: true,
            point: Some(wanted.point.clone()),
            written: true,
            ..Existing::default()
        });
    }

    /// Does all of a plan.
    fn act(&mut self, plan: &Plan) {
        for at in plan.remove.iter().rev() {
            self.existing.remove(*at);
        }
        for wanted in &plan.write {
            let name = name_of(&wanted.point);
            let mut all = self.existing.iter_mut();
            let one = all.find(|one| one.namespace == wanted.namespace && one.name == name);
            one.unwrap().written = true;
        }
        for offer in &plan.offers {
            for wanted in &offer.create {
                self.synced(wanted);
            }
        }
        self.offered = plan.kept.clone();
        self.offered
            .extend(plan.offers.iter().map(|offer| offer.pair.clone()));
    }

    fn made(&self) -> BTreeSet<(String, String)> {
        let ours = self.existing.iter().filter(|one| one.synced);
        ours.map(|one| (one.namespace.clone(), one.name.clone()))
            .collect()
    }

    /// Whether the namespace of a point may see it, in plain words.
    fn may_see(&self, point: &KnownPoint) -> bool {
        let origin = &point.origin;
        let Some(place) = self.places.get(&origin.namespace) else {
            return false;
        };
        let own = origin.cluster_uid == HERE && origin.namespace_uid == place.uid;
        own || self.grants.iter().any(|grant| {
            grant.from.namespace == origin.namespace
                && grant.to.contains(&origin.namespace)
                && grant.from.cluster_uid.as_deref().unwrap_or(HERE) == origin.cluster_uid
        })
    }
}

fn id(number: u8) -> String {
    format!("{number:016x}-00000000")
}

fn namespace(number: u8) -> String {
    ["shop", "bank", "lab"][usize::from(number % 3)].to_owned()
}

fn point(
    (number, volume, taken, place, cluster, uid): (u8, u8, i64, u8, bool, bool),
) -> KnownPoint {
    let namespace = namespace(place);
    KnownPoint {
        id: id(number),
        volume: VolumeId([volume % 3; 16]),
        taken,
        owner: format!("owner-{number}"),
        origin: Arc::new(Origin {
            cluster_uid: if cluster { HERE } else { "cluster-b" }.to_owned(),
            namespace_uid: format!("{namespace}-{uid}"),
            namespace,
        }),
    }
}

fn points() -> impl Strategy<Value = Vec<KnownPoint>> {
    let one = (
        any::<u8>(),
        any::<u8>(),
        0_i64..5,
        0_u8..3,
        any::<bool>(),
        any::<bool>(),
    );
    proptest::collection::vec(one, 0..24).prop_map(|all| {
        let unique: BTreeMap<u8, _> = all.into_iter().map(|one| (one.0, one)).collect();
        unique.into_values().map(point).collect()
    })
}

fn grants() -> impl Strategy<Value = Vec<Grant>> {
    let one = (0_u8..3, 0_u8..3, proptest::option::of(any::<bool>()));
    proptest::collection::vec(one, 0..4).prop_map(|all| {
        let grant = |(from, to, cluster): (u8, u8, Option<bool>)| Grant {
            from: GrantSource {
                cluster_uid: cluster.map(|here| if here { HERE } else { "cluster-b" }.to_owned()),
                namespace: namespace(from),
            },
            to: vec![namespace(to)],
        };
        all.into_iter().map(grant).collect()
    })
}

/// Backups that users made, and what was left of earlier looks: of points that exist, and of others.
fn existing() -> impl Strategy<Value = Vec<Existing>> {
    let one = (
        any::<u8>(),
        0_u8..3,
        proptest::option::of(any::<bool>()),
        any::<[bool; 3]>(),
    );
    proptest::collection::vec(one, 0..10).prop_map(|all| {
        let mut seen = BTreeSet::new();
        let of =
            |(number, place, written, [own, named, deletes]): (u8, u8, Option<bool>, [bool; 3])| {
                let synced = written.is_some();
                Existing {
                    namespace: namespace(place),
                    name: if synced || named {
                        name_of(&id(number))
                    } else {
                        format!("mine-{number}")
                    },
                    uid: if own && !synced {
                        format!("owner-{number}")
                    } else {
                        format!("uid-{number}-{place}")
                    },
                    synced,
                    point: Some(id(number)).filter(|_| written != Some(false) && !named),
                    written: written.unwrap_or(true),
                    deletes,
                    deleting: false,
                }
            };
        let all = all.into_iter().map(of);
        all.filter(|one| seen.insert((one.namespace.clone(), one.name.clone())))
            .collect()
    })
}

prop_compose! {
    fn worlds()(
        all in any::<bool>(),
        points in points(),
        damaged in proptest::collection::btree_set(any::<u8>().prop_map(id), 0..3),
        uids in proptest::collection::vec((0_u8..3, any::<bool>()), 0..4),
        grants in grants(),
        existing in existing(),
        most in prop_oneof![Just(1000_usize), 0_usize..6],
    ) -> World {
        let place = |(number, uid): (u8, bool)| {
            let name = namespace(number);
            let uid = format!("{name}-{uid}");
            (name, Place { uid })
        };
        World {
            mode: if all { Sync::All } else { Sync::Latest },
            points,
            damaged,
            places: uids.into_iter().map(place).collect(),
            grants,
            existing,
            offered: BTreeSet::new(),
            most,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 800, ..ProptestConfig::default() })]

    /// What is made is what may be seen, once, under a free name, and without a backup of its own.
    #[test]
    fn only_what_may_be_seen_is_made(world in worlds()) {
        let plan = world.plan();
        let mut made = BTreeSet::new();
        for wanted in plan.offers.iter().flat_map(|offer| &offer.create).chain(&plan.write) {
            let point = world.points.iter().find(|point| point.id == wanted.point).unwrap();
            prop_assert!(world.may_see(point), "{wanted:?}");
            prop_assert_eq!(&wanted.namespace, &point.origin.namespace);
            let place = &world.places[&wanted.namespace];
            let own = point.origin.cluster_uid == HERE && point.origin.namespace_uid == place.uid;
            prop_assert_eq!(wanted.granted, !own);
            prop_assert!(made.insert(wanted.clone()));
            let has_own = |one: &Existing| {
                !one.synced && one.namespace == wanted.namespace && one.point.as_ref() == Some(&wanted.point)
                    || one.uid == point.owner
            };
            prop_assert!(plan.write.contains(wanted) || !world.existing.iter().any(has_own));
        }
        for wanted in plan.offers.iter().flat_map(|offer| &offer.create) {
            let taken = |one: &Existing| one.namespace == wanted.namespace && one.name == name_of(&wanted.point);
            prop_assert!(!world.existing.iter().any(taken), "{wanted:?}");
        }
        let creates: usize = plan.offers.iter().map(|offer| offer.create.len()).sum();
        prop_assert!(creates == 0 || plan.there + creates <= world.most);
    }

    /// Nothing of others is removed, and of ours only what has no point, has a backup of its own, or was never written and may not be; never
    /// what would take a point along.
    #[test]
    fn only_ours_is_removed(world in worlds()) {
        let plan = world.plan();
        for (at, one) in world.existing.iter().enumerate() {
            let id = point_of(&one.name).unwrap_or("");
            let point = world.points.iter().find(|point| point.id == id);
            let is_held = point.is_some() || world.damaged.contains(id);
            let removed = plan.remove.contains(&at);
            prop_assert!(one.synced || !removed);
            if one.synced && !is_held && !one.deletes {
                prop_assert!(removed, "its point is gone: {one:?}");
            }
            prop_assert!(!(removed && one.deletes && one.written), "it would take its point along: {one:?}");
            let has_own = world.existing.iter().any(|other| {
                !other.synced && other.namespace == one.namespace && other.point.as_deref() == Some(id)
                    || point.is_some_and(|point| other.uid == point.owner)
            });
            if removed && is_held && one.written {
                prop_assert!(has_own && !one.deletes, "{one:?}");
            }
        }
    }

    /// When everything was done there is nothing to do, whatever is off or on.
    #[test]
    fn the_second_look_does_nothing(mut world in worlds()) {
        let plan = world.plan();
        world.act(&plan);
        let again = world.plan();
        let creates: usize = again.offers.iter().map(|offer| offer.create.len()).sum();
        prop_assert!(again.remove.is_empty() && again.write.is_empty() && creates == 0, "{again:?}");
        world.mode = Sync::None;
        let off = world.plan();
        prop_assert!(off.remove.is_empty() && off.write.is_empty() && off.offers.is_empty() && off.kept.is_empty());
    }

    /// What somebody deletes never comes back, whatever else happens to points and backups.
    #[test]
    fn what_was_deleted_stays_away(
        mut world in worlds(),
        deleted in proptest::collection::vec(any::<prop::sample::Index>(), 1..4),
        more in points(),
    ) {
        let plan = world.plan();
        world.act(&plan);
        let mut gone = BTreeSet::new();
        for index in deleted {
            if !world.existing.is_empty() {
                let one = world.existing.remove(index.index(world.existing.len()));
                let id = one.point.clone().or_else(|| point_of(&one.name).map(str::to_owned));
                gone.extend(id.map(|id| (one.namespace, name_of(&id))));
            }
        }
        // New points of origins that were offered, too.
        let origins: Vec<_> = world.points.iter().map(|point| Arc::clone(&point.origin)).collect();
        let new = more.into_iter().filter(|point| origins.contains(&point.origin));
        let new: Vec<_> = new.filter(|point| world.points.iter().all(|known| known.id != point.id)).collect();
        world.points.extend(new);
        for _ in 0..2 {
            let plan = world.plan();
            world.act(&plan);
            let made = world.made();
            prop_assert!(gone.iter().all(|one| !made.contains(one) || world.existing.iter().any(|e| e.synced && e.name == one.1 && !e.uid.starts_with("made-"))), "{gone:?} {made:?}");
        }
    }

    /// `Latest` makes one for each volume of a namespace: the newest.
    #[test]
    fn latest_is_the_newest_of_each_volume(points in points()) {
        let world = World {
            mode: Sync::Latest,
            places: BTreeMap::from([0_u8, 1, 2].map(|number| {
                let name = namespace(number);
                let uid = format!("{name}-true");
                (name, Place { uid })
            })),
            points,
            damaged: BTreeSet::new(),
            grants: Vec::new(),
            existing: Vec::new(),
            offered: BTreeSet::new(),
            most: 1000,
        };
        let plan = world.plan();
        let made: BTreeSet<&str> = plan.offers.iter().flat_map(|offer| &offer.create).map(|one| one.point.as_str()).collect();
        for point in world.points.iter().filter(|point| world.may_see(point)) {
            let newer = world.points.iter().any(|other| {
                other.origin == point.origin && other.volume == point.volume
                    && (other.taken, &other.id) > (point.taken, &point.id)
            });
            prop_assert_eq!(made.contains(point.id.as_str()), !newer);
        }
    }
}

#[test]
fn a_grant_that_comes_later_is_an_offer_of_its_own() {
    let mut world = World {
        mode: Sync::All,
        points: vec![
            point((1, 0, 1, 0, true, true)),
            point((2, 0, 2, 0, false, true)),
        ],
        damaged: BTreeSet::new(),
        places: BTreeMap::from([(
            "shop".to_owned(),
            Place {
                uid: "shop-true".to_owned(),
            },
        )]),
        grants: Vec::new(),
        existing: Vec::new(),
        offered: BTreeSet::new(),
        most: MOST,
    };
    let first = world.plan();
    assert_eq!((first.offers.len(), first.unserved), (1, 1));
    world.act(&first);
    world.grants.push(Grant {
        from: GrantSource {
            cluster_uid: Some("cluster-b".to_owned()),
            namespace: "shop".to_owned(),
        },
        to: vec!["shop".to_owned()],
    });
    let second = world.plan();
    let made: Vec<&Wanted> = second
        .offers
        .iter()
        .flat_map(|offer| &offer.create)
        .collect();
    assert_eq!(made.len(), 1);
    assert!(made[0].granted && made[0].point == id(2));
    world.act(&second);
    // Asked for anew: everything that is not there, nothing that is.
    world.existing.remove(0);
    world.offered.clear();
    let anew: usize = world
        .plan()
        .offers
        .iter()
        .map(|offer| offer.create.len())
        .sum();
    assert_eq!(anew, 1);
}
