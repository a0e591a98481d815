//! The queue of reads and writes.

use std::io::ErrorKind;

use anyhow::{Context, Result, ensure};
use changed_blocks::rbd::{Access, AioQueue};
use tests::random::Random;

use crate::site::{POOL, Site};

const MIB: usize = 1 << 20;
/// Not a multiple of anything, so that the last object is odd.
const SIZE: usize = 37 * MIB + 12_345;
const DEPTH: usize = 64;

fn bytes_of(value: usize) -> u64 {
    u64::try_from(value).expect("a usize fits 64 bits")
}

/// Random writes and zeroes of odd sizes at depth, read back in odd pieces and compared with a model in memory.
pub(crate) fn round_trips(site: &Site) -> Result<()> {
    let mut random = Random::from_environment("queue_round_trips");
    let name = site.create(bytes_of(SIZE), "layering")?;
    let image = site.open(&name, None, Access::Write)?;
    ensure!(image.watchers()?.len() == 1, "who writes watches");
    ensure!(image.object_size()? == bytes_of(MIB) && image.stripe_count()? == 1);
    let mut queue: AioQueue<Vec<u8>> = AioQueue::new(image)?;
    let mut model = vec![0; SIZE];
    for _round in 0..6 {
        change(&mut queue, &mut model, &mut random)?;
        ensure!(read_back(&mut queue, &mut random)? == model, "bytes differ");
    }
    queue.flush()?;
    drop(queue);
    let image = site.open(&name, None, Access::Read)?;
    let mut queue: AioQueue<Vec<u8>> = AioQueue::new(image)?;
    ensure!(read_back(&mut queue, &mut random)? == model, "bytes differ");
    Ok(())
}

/// One round: the image in slots, one request for each, all at once.
fn change(queue: &mut AioQueue<Vec<u8>>, model: &mut [u8], random: &mut Random) -> Result<()> {
    let slot = SIZE / DEPTH;
    for index in 0..DEPTH {
        let start = index * slot + random.index(slot / 2);
        let len = 1 + random.index(slot / 2);
        let (token, offset) = (bytes_of(index), bytes_of(start));
        if random.below(4) == 0 {
            model[start..start + len].fill(0);
            queue.write_zeroes(token, offset, len);
        } else {
            random.fill(&mut model[start..start + len]);
            queue.write(token, offset, len, model[start..start + len].to_vec());
        }
    }
    ensure!(queue.in_flight() == DEPTH);
    let mut seen = [false; DEPTH];
    while let Some(done) = queue.wait() {
        done.result.with_context(|| format!("at {}", done.offset))?;
        let token = usize::try_from(done.token)?;
        ensure!(
            !std::mem::replace(&mut seen[token], true),
            "{token} came twice"
        );
    }
    ensure!(seen.iter().all(|seen| *seen), "a request never came back");
    Ok(())
}

fn read_back(queue: &mut AioQueue<Vec<u8>>, random: &mut Random) -> Result<Vec<u8>> {
    let mut content = vec![0x77; SIZE];
    let (mut position, mut token) = (0, 0);
    while position < SIZE {
        let len = (1 + random.index(MIB + 999)).min(SIZE - position);
        queue.read(token, bytes_of(position), len, vec![0x55; len]);
        position += len;
        token += 1;
    }
    while let Some(done) = queue.wait() {
        done.result.with_context(|| format!("at {}", done.offset))?;
        let start = usize::try_from(done.offset)?;
        let buffer = done.buffer.context("reads give their buffer back")?;
        content[start..start + done.len].copy_from_slice(&buffer[..done.len]);
    }
    Ok(content)
}

pub(crate) fn refuses_what_passes_the_end(site: &Site) -> Result<()> {
    let name = site.create(bytes_of(SIZE), "layering")?;
    let image = site.open(&name, None, Access::Write)?;
    let mut queue: AioQueue<Vec<u8>> = AioQueue::new(image)?;
    let end = bytes_of(SIZE);
    queue.read(0, end - 10, 11, vec![0; 11]);
    queue.read(1, u64::MAX, 2, vec![0; 2]);
    queue.write(2, end, 1, vec![0; 1]);
    queue.write_zeroes(3, end - 1, 2);
    queue.read(4, 0, 10, vec![0; 9]);
    queue.read(5, end - 10, 10, vec![1; 10]);
    queue.read(6, end, 0, Vec::new());
    let mut kinds = [None; 7];
    while let Some(done) = queue.wait() {
        ensure!(done.buffer.is_some() || done.token == 3);
        kinds[usize::try_from(done.token)?] = Some(done.result.err().map(|error| error.kind()));
    }
    let expected = [
        Some(ErrorKind::UnexpectedEof),
        Some(ErrorKind::UnexpectedEof),
        Some(ErrorKind::InvalidInput),
        Some(ErrorKind::InvalidInput),
        Some(ErrorKind::InvalidInput),
        None,
        None,
    ];
    ensure!(kinds == expected.map(Some), "{kinds:?}");
    Ok(())
}

/// Where a restore writes zeros to a clone, the parent's bytes must not come back.
pub(crate) fn zeroes_on_a_clone_reveal_no_parent(site: &Site) -> Result<()> {
    let parent = site.create(bytes_of(8 * MIB), "layering")?;
    let mut queue: AioQueue<Vec<u8>> = AioQueue::new(site.open(&parent, None, Access::Write)?)?;
    queue.write(0, 0, 8 * MIB, vec![0xEE; 8 * MIB]);
    queue.wait().context("one request")?.result?;
    drop(queue);
    let base = format!("{POOL}/{parent}@s");
    let clone = site.name("clone");
    site.ceph.rbd(&["snap", "create", &base, "--no-progress"])?;
    let options = ["--rbd-default-clone-format", "2"];
    site.ceph
        .rbd(&[&["clone", &base, &format!("{POOL}/{clone}")][..], &options].concat())?;
    let mut queue: AioQueue<Vec<u8>> = AioQueue::new(site.open(&clone, None, Access::Write)?)?;
    // A whole object, parts of two, the end of one.
    let zeroed = [(MIB, MIB), (2 * MIB + 5, MIB), (5 * MIB + 4096, MIB - 4096)];
    for (start, len) in zeroed {
        queue.write_zeroes(0, bytes_of(start), len);
    }
    while let Some(done) = queue.wait() {
        done.result?;
    }
    queue.read(0, 0, 8 * MIB, vec![0; 8 * MIB]);
    let content = queue.wait().context("one request")?;
    content.result?;
    let mut expected = vec![0xEE; 8 * MIB];
    for (start, len) in zeroed {
        expected[start..start + len].fill(0);
    }
    ensure!(content.buffer == Some(expected), "the parent shows through");
    Ok(())
}
