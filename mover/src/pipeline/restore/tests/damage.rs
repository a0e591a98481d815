//! Stored objects that are damaged, swapped, missing or moved.

use super::*;

/// Chunks whose body is in the object, by a map walk.
fn chunks_in(bed: &Bed, key: &SessionKey, object: &str) -> Vec<(u64, u16)> {
    let point = load(&bed.repository, key).unwrap().unwrap();
    let mut cursor = crate::repository::map::MapCursor::new(&bed.repository, &point.manifest.root);
    let (mut from, mut chunks) = (0, Vec::new());
    while let Some((index, leaf)) = cursor.next(from).unwrap() {
        for (place, _, location) in leaf.leaf.data() {
            if name::segment(location.segment, 0) == object {
                chunks.push((index * 256 + place as u64, location.ordinal));
            }
        }
        from = index + 1;
    }
    chunks
}

/// The image with zeros where the report lost something; every lost range must lie in `allowed` chunks.
fn without_lost(image: &[u8], report: &RestoreReport, allowed: &[u64]) -> Vec<u8> {
    let mut expected = image.to_vec();
    for lost in &report.lost {
        let from = usize::try_from(lost.offset).unwrap();
        let to = from + usize::try_from(lost.length).unwrap();
        expected[from..to].fill(0);
        for chunk in from / CHUNK..to.div_ceil(CHUNK) {
            assert!(
                allowed.contains(&(chunk as u64)),
                "chunk {chunk} is not in the damaged object"
            );
        }
    }
    expected
}

#[test]
fn a_flipped_body_fails_or_is_salvaged() {
    let bed = Bed::new();
    let image = image(500, 321, 31);
    let key = bed.point(
        "disk",
        &image,
        Layout {
            spread: 3,
            ..Layout::default()
        },
    );
    let object = bed.objects("seg/")[2].clone();
    let len = fs::metadata(bed.object(&object)).unwrap().len();
    flip(&bed.object(&object), len - 100);
    let target = bed.path("target");
    let error = run(&bed.context(), &request(&key, &target)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(error.object_name(), Some(object.as_str()));
    assert!(
        error.to_string().contains(&key.point().to_string()),
        "{error}"
    );
    assert!(!target.exists(), "a broken restore does not look complete");

    let salvage = RestoreRequest {
        salvage: true,
        delta: true,
        ..request(&key, &target)
    };
    let report = run(&bed.context(), &salvage).unwrap();
    let chunks: Vec<u64> = chunks_in(&bed, &key, &object)
        .into_iter()
        .map(|(chunk, _)| chunk)
        .collect();
    assert!(
        !report.lost.is_empty()
            && report.lost.iter().map(|lost| lost.length).sum::<u64>() < 10 * CHUNK as u64
    );
    assert_same(&target, &without_lost(&image, &report, &chunks));
    assert_eq!(sum(&report), report.size_bytes);
    assert!(report.lost[0].why.contains(&object), "{:?}", report.lost);
    let (bytes, streamed) = to_vec(&bed, &key, None, true).unwrap();
    assert_eq!(streamed.lost.len(), report.lost.len());
    assert!(bytes == without_lost(&image, &streamed, &chunks));
    assert_eq!(
        to_vec(&bed, &key, None, false).unwrap_err().kind(),
        ErrorKind::Corrupt
    );
}

type Damage = fn(&Path);

#[test]
fn damaged_segments_of_each_kind_are_salvaged() {
    let kinds: [(&str, Damage); 4] = [
        ("head", |path| flip(path, 80)),
        ("missing", |path| fs::remove_file(path).unwrap()),
        ("cut", |path| {
            fs::OpenOptions::new()
                .write(true)
                .open(path)
                .unwrap()
                .set_len(300_000)
                .unwrap();
        }),
        ("empty", |path| fs::write(path, b"").unwrap()),
    ];
    for (at, (kind, damage)) in kinds.into_iter().enumerate() {
        let bed = Bed::new();
        let image = image(300, 0, 40 + at as u64);
        let key = bed.point(
            "disk",
            &image,
            Layout {
                spread: 2,
                compression: Compression::None,
            },
        );
        let object = bed.objects("seg/")[1].clone();
        let chunks: Vec<u64> = chunks_in(&bed, &key, &object)
            .into_iter()
            .map(|(chunk, _)| chunk)
            .collect();
        damage(&bed.object(&object));
        let target = bed.path("target");
        let error = run(&bed.context(), &request(&key, &target)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{kind}: {error}");
        assert!(!target.exists(), "{kind}");
        fs::write(&target, vec![0xff; image.len()]).unwrap();
        let salvage = RestoreRequest {
            salvage: true,
            force: true,
            ..request(&key, &target)
        };
        let report = run(&bed.context(), &salvage).unwrap();
        assert!(!report.lost.is_empty(), "{kind}");
        assert_same(&target, &without_lost(&image, &report, &chunks));
        assert_eq!(sum(&report), report.size_bytes, "{kind}");
    }
}

#[test]
fn swapped_segments_are_noticed() {
    let bed = Bed::new();
    let image = image(300, 0, 51);
    let key = bed.point("disk", &image, Layout::default());
    let objects = bed.objects("seg/");
    let (a, b) = (bed.object(&objects[0]), bed.object(&objects[1]));
    let (first, second) = (fs::read(&a).unwrap(), fs::read(&b).unwrap());
    fs::write(&a, second).unwrap();
    fs::write(&b, first).unwrap();
    let error = run(&bed.context(), &request(&key, &bed.path("target"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let salvage = RestoreRequest {
        salvage: true,
        ..request(&key, &bed.path("target2"))
    };
    assert!(!run(&bed.context(), &salvage).unwrap().lost.is_empty());
}

#[test]
fn a_damaged_map_loses_what_it_hides() {
    let bed = Bed::new();
    let image = image(1000, 0, 61);
    let key = bed.point("disk", &image, Layout::default());
    let object = bed.objects("map/")[0].clone();
    let clean = fs::read(bed.object(&object)).unwrap();
    let target = bed.path("target");
    // Bodies are in front of the padding-free end: one of the first is a leaf.
    let at = (4096..clean.len()).find(|at| clean[*at] != 0).unwrap() as u64 + 20;
    flip(&bed.object(&object), at);
    let error = run(&bed.context(), &request(&key, &target)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(error.object_name(), Some(object.as_str()));
    let report = run(
        &bed.context(),
        &RestoreRequest {
            salvage: true,
            delta: true,
            ..request(&key, &target)
        },
    )
    .unwrap();
    let all: Vec<u64> = (0..1000).collect();
    assert!(!report.lost.is_empty());
    assert_same(&target, &without_lost(&image, &report, &all));
    assert_eq!(sum(&report), report.size_bytes);
    fs::remove_file(bed.object(&object)).unwrap();
    let gone = bed.path("gone");
    let report = run(
        &bed.context(),
        &RestoreRequest {
            salvage: true,
            ..request(&key, &gone)
        },
    )
    .unwrap();
    assert_eq!(
        report.lost.iter().map(|lost| lost.length).sum::<u64>(),
        image.len() as u64
    );
    assert_same(&gone, &vec![0; image.len()]);
}

#[test]
fn a_map_of_another_point_is_refused() {
    let bed = Bed::new();
    let key = bed.point("disk", &image(40, 0, 91), Layout::default());
    let mut point = load(&bed.repository, &key).unwrap().unwrap();
    point.manifest.content_hash = [9; 32];
    let context = bed.context();
    let geometry = Geometry::new(point.manifest.size, point.manifest.chunk_size, None).unwrap();
    let losses = Losses::new(false, String::new(), geometry.clone());
    let request = request(&key, Path::new("-"));
    let restore = Restore {
        point: &point,
        request: &request,
        seed: 1,
    };
    let error = restore
        .to_stream(Job::new(&context, geometry, losses), Vec::new())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("content hash"), "{error}");
}

#[test]
fn a_lost_manifest_is_read_through_its_copy() {
    let bed = Bed::new();
    let image = image(40, 0, 92);
    let key = bed.point("disk", &image, Layout::default());
    fs::remove_file(bed.object(&name::slot(&key))).unwrap();
    let report = run(&bed.context(), &request(&key, &bed.path("target"))).unwrap();
    assert_same(&bed.path("target"), &image);
    assert!(
        report
            .warnings
            .iter()
            .any(|warning| warning.contains("copy")),
        "{:?}",
        report.warnings
    );
}

#[test]
fn a_flipped_bit_is_never_restored_as_good() {
    let bed = Bed::new();
    let image = image(40, 77, 94);
    let key = bed.point(
        "disk",
        &image,
        Layout {
            spread: 2,
            ..Layout::default()
        },
    );
    let (mut failed, mut same) = (0, 0);
    for object in bed.objects("") {
        let path = bed.object(&object);
        let len = fs::metadata(&path).unwrap().len();
        for part in 0..25 {
            let at = len * part / 25;
            flip(&path, at);
            // Damage that hurts nothing (padding, a second copy) may pass; other bytes may not.
            match to_vec(&bed, &key, None, false) {
                Ok((bytes, _)) => {
                    assert!(bytes == image, "{object} at {at}");
                    same += 1;
                }
                Err(error) => {
                    assert_eq!(
                        error.kind(),
                        ErrorKind::Corrupt,
                        "{object} at {at}: {error}"
                    );
                    failed += 1;
                }
            }
            flip(&path, at);
        }
    }
    assert!(
        failed > 50 && same > 0,
        "{failed} restores failed, {same} did not"
    );
}

/// Writes the next generation of a segment without the bodies in `dead` and removes the old one.
fn compact(bed: &Bed, id: SegmentId, dead: &[u16]) {
    let reader = SegmentReader::new(&bed.repository);
    let old = reader.directory(Class::Data, id).unwrap();
    let mut builder = ContainerBuilder::compaction(Arc::clone(&bed.repository.keys), &old, SEGMENT);
    for entry in old
        .entries()
        .iter()
        .filter(|entry| !dead.contains(&entry.ordinal))
    {
        let end = entry.offset + u64::from(entry.stored_len);
        let sealed = reader.read(&old, entry.offset..end).unwrap();
        builder.copy_body(entry, &sealed).unwrap();
    }
    let next = name::segment(id, 1);
    bed.repository
        .store
        .put(&next, builder.finish(&next).unwrap())
        .unwrap();
    bed.repository.store.delete(old.object()).unwrap();
}

#[test]
fn compacted_segments_are_found() {
    let bed = Bed::new();
    let image = image(300, 0, 95);
    let key = bed.point("disk", &image, Layout::default());
    for number in [0, 2] {
        compact(
            &bed,
            SegmentId {
                session: key.session,
                number,
            },
            &[],
        );
    }
    assert_eq!(to_vec(&bed, &key, None, false).unwrap().0, image);
    // A body that was dropped although the point needs it is a loss, not somebody else's chunk.
    compact(
        &bed,
        SegmentId {
            session: key.session,
            number: 1,
        },
        &[3],
    );
    assert_eq!(
        to_vec(&bed, &key, None, false).unwrap_err().kind(),
        ErrorKind::Corrupt
    );
    let report = to_vec(&bed, &key, None, true).unwrap().1;
    assert_eq!(report.lost[0].length % CHUNK as u64, 0);
}

#[test]
fn a_segment_that_moves_while_it_is_read_is_found_again() {
    let bed = Bed::new();
    let image = image(600, 0, 96);
    let key = bed.point(
        "disk",
        &image,
        Layout {
            spread: 3,
            ..Layout::default()
        },
    );
    // Ranges far from the start of a segment, so that directory and bodies are different requests.
    let range = Some((CHUNK as u64 * 101, CHUNK as u64 * 300));
    for call in 0..8 {
        let store = Arc::new(FaultyStore::new(Arc::clone(&bed.repository.store)));
        store.add(Rule::nth(
            Operation::Get,
            "seg/",
            call,
            Fault::Fail(ErrorKind::NotFound),
        ));
        let target = bed.path(&format!("target-{call}"));
        run(
            &bed.context_over(store),
            &RestoreRequest {
                range,
                ..request(&key, &target)
            },
        )
        .unwrap();
        assert_same(&target, &image[101 * CHUNK..401 * CHUNK]);
    }
}
