//! The files: one that grows, and finished ones.
//!
//! | file | what it is |
//! |---|---|
//! | `current.jsonl` | what is being written; each time whole lines, on the disk before the position moves |
//! | `events-<time>-<number>.jsonl[.zst]` | finished, never changed again; time of its first line, UTC |
//! | `position.json` | how far each source is written |
//! | `lock` | held by the process that writes |

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use runtime::bootstrap::Export;
use serde::{Deserialize, Serialize};

const CURRENT: &str = "current.jsonl";
const POSITION: &str = "position.json";
const LOCK: &str = "lock";
/// As fast as most disks, and small enough.
const LEVEL: i32 = 3;
/// How often finished files are looked through, also when none is finished.
const TIDY_EVERY_MS: u64 = 60_000;
/// Format of the position.
const FORMAT: u32 = 1;

/// How far each source is written: the last sequence.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Places {
    format: u32,
    /// Of the next finished file.
    number: u64,
    written: BTreeMap<String, u64>,
}

impl Places {
    /// 0 = nothing yet.
    pub(super) fn get(&self, source: &str) -> u64 {
        self.written.get(source).copied().unwrap_or(0)
    }

    pub(super) fn set(&mut self, source: String, sequence: u64) {
        self.written.insert(source, sequence);
    }
}

pub(super) struct Folder {
    settings: Export,
    current: Option<Current>,
    number: u64,
    /// When finished files are looked through again, Unix milliseconds.
    tidy_at_ms: u64,
    /// Held as long as this lives.
    _lock: File,
}

struct Current {
    file: File,
    octets: u64,
    begun_ms: u64,
}

impl Current {
    fn cut(&mut self, octets: u64) -> io::Result<()> {
        self.file.set_len(octets)?;
        self.file.seek(SeekFrom::Start(octets))?;
        self.octets = octets;
        Ok(())
    }
}

impl Folder {
    /// Takes the folder, for one process; finishes what a crash left.
    pub(super) fn open(settings: Export, now_ms: u64) -> io::Result<(Self, Places)> {
        fs::create_dir_all(&settings.folder)?;
        let lock = File::create(settings.folder.join(LOCK))?;
        lock.try_lock()
            .map_err(|error| io::Error::other(format!("another process writes there: {error}")))?;
        let places = read_places(&settings.folder.join(POSITION))?;
        let mut folder = Self {
            settings,
            current: None,
            number: places.number,
            tidy_at_ms: 0,
            _lock: lock,
        };
        folder.recover(now_ms)?;
        Ok((folder, places))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.settings.folder.join(name)
    }

    /// Cuts off the line that was being written, and goes on after it.
    fn recover(&mut self, now_ms: u64) -> io::Result<()> {
        let path = self.path(CURRENT);
        let opened = OpenOptions::new().read(true).write(true).open(&path);
        let mut file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let octets = end_of_lines(&mut file)?;
        file.set_len(octets)?;
        file.sync_all()?;
        file.seek(SeekFrom::End(0))?;
        self.current = Some(Current {
            file,
            octets,
            begun_ms: now_ms,
        });
        Ok(())
    }

    /// Writes whole lines; when it returns they and the position are on the disk. After an error nothing of them is in the
    /// file.
    pub(super) fn append(&mut self, lines: &[u8], places: &Places, now_ms: u64) -> io::Result<()> {
        let before = self.current.as_ref().map_or(0, |current| current.octets);
        self.write(lines, now_ms)?;
        if let Err(error) = self.keep(places) {
            if let Some(current) = &mut self.current {
                current.cut(before)?;
            }
            return Err(error);
        }
        Ok(())
    }

    /// Finishes the file when it is time, compresses what is finished, and removes what is old or too much.
    pub(super) fn maintain(&mut self, places: &Places, now_ms: u64) -> io::Result<()> {
        let is_due = self.current.as_ref().is_some_and(|current| {
            let age_ms = now_ms.saturating_sub(current.begun_ms);
            current.octets >= self.settings.rotate_size.as_u64()
                || age_ms >= self.settings.rotate_every.as_millis() && current.octets > 0
        });
        if is_due {
            self.finish()?;
            self.keep(places)?;
        }
        if now_ms >= self.tidy_at_ms {
            self.tidy_at_ms = now_ms + TIDY_EVERY_MS;
            self.tidy(now_ms)?;
        }
        Ok(())
    }

    fn write(&mut self, lines: &[u8], now_ms: u64) -> io::Result<()> {
        if self.current.is_none() {
            let path = self.path(CURRENT);
            let file = OpenOptions::new()
                .create(true)
                .truncate(true)
                .write(true)
                .open(path)?;
            self.current = Some(Current {
                file,
                octets: 0,
                begun_ms: now_ms,
            });
        }
        let Some(current) = &mut self.current else {
            return Ok(());
        };
        let written = current
            .file
            .write_all(lines)
            .and_then(|()| current.file.sync_data());
        if let Err(error) = written {
            // The disk may be full: what is there of it goes, so that every line is whole.
            current.cut(current.octets)?;
            return Err(error);
        }
        current.octets += lines.len() as u64;
        Ok(())
    }

    /// Replaces the position: a crash leaves the old one or the new one.
    fn keep(&self, places: &Places) -> io::Result<()> {
        let places = Places {
            format: FORMAT,
            number: self.number,
            ..places.clone()
        };
        let draft = self.path("position.json.new");
        let mut file = File::create(&draft)?;
        file.write_all(&serde_json::to_vec(&places)?)?;
        file.sync_data()?;
        fs::rename(&draft, self.path(POSITION))?;
        sync_folder(&self.settings.folder)
    }

    fn finish(&mut self) -> io::Result<()> {
        let Some(current) = self.current.take() else {
            return Ok(());
        };
        let begun = i64::try_from(current.begun_ms).ok();
        let begun = begun.and_then(|ms| Timestamp::from_millisecond(ms).ok());
        let time = begun
            .unwrap_or(Timestamp::UNIX_EPOCH)
            .strftime("%Y%m%dT%H%M%SZ");
        let name = format!("events-{time}-{:08}.jsonl", self.number);
        if let Err(error) = fs::rename(self.path(CURRENT), self.path(&name)) {
            self.current = Some(current);
            return Err(error);
        }
        self.number += 1;
        self.tidy_at_ms = 0;
        sync_folder(&self.settings.folder)
    }

    /// Makes room: removes what is old or too much, and what a crash left. Nothing is compressed.
    pub(super) fn make_room(&self, now_ms: u64) -> io::Result<()> {
        self.remove(now_ms).map(drop)
    }

    /// Removes what is old or too much, then compresses what is finished; what can't be now is next time.
    fn tidy(&self, now_ms: u64) -> io::Result<()> {
        let left = self.remove(now_ms)?;
        let mut tidied = Ok(());
        if self.settings.is_compressed {
            let plain = |path: &&PathBuf| path.extension().is_some_and(|end| end == "jsonl");
            for path in left.iter().filter(plain) {
                if let Err(error) = compress(path) {
                    tidied = Err(error);
                }
            }
        }
        tidied
    }

    /// Removes what is old or too much; gives the finished files that are left. One that can't be removed is left, and
    /// tells it at the end.
    fn remove(&self, now_ms: u64) -> io::Result<Vec<PathBuf>> {
        let mut finished = Vec::new();
        let mut removed = Ok(());
        for entry in fs::read_dir(&self.settings.folder)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let Some(name) = name.filter(|name| name.starts_with("events-")) else {
                continue;
            };
            if name.ends_with(".new") {
                removed = removed.and(fs::remove_file(&path));
            } else if name.ends_with(".jsonl") || name.ends_with(".jsonl.zst") {
                finished.push(path);
            }
        }
        // Their names begin with their times.
        finished.sort();
        let mut left = Vec::new();
        let mut octets = 0;
        let most = self.settings.keep_size.map(mail::ByteSize::as_u64);
        for path in finished.into_iter().rev() {
            let about = fs::metadata(&path)?;
            octets += about.len();
            let written_ms = about
                .modified()?
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |since| since.as_millis());
            let age_ms = u128::from(now_ms).saturating_sub(written_ms);
            let is_old = age_ms >= u128::from(self.settings.keep.as_millis());
            if is_old || most.is_some_and(|most| octets > most) {
                removed = removed.and(fs::remove_file(&path));
            } else {
                left.push(path);
            }
        }
        removed.map(|()| left)
    }
}

/// Replaces a finished file by a compressed one. A crash leaves the one or the other.
fn compress(path: &Path) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".zst");
    let finished = PathBuf::from(name);
    let mut draft = finished.clone().into_os_string();
    draft.push(".new");
    if let Err(error) = pack(path, Path::new(&draft)) {
        // The disk may be full: what is there of it takes up room.
        fs::remove_file(&draft).ok();
        return Err(error);
    }
    fs::rename(&draft, &finished)?;
    if let Some(folder) = path.parent() {
        sync_folder(folder)?;
    }
    fs::remove_file(path)
}

fn pack(path: &Path, draft: &Path) -> io::Result<()> {
    let mut into = zstd::Encoder::new(File::create(draft)?, LEVEL)?;
    into.include_checksum(true)?;
    io::copy(&mut File::open(path)?, &mut into)?;
    into.finish()?.sync_all()
}

/// What was renamed in it is on the disk.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn read_places(path: &Path) -> io::Result<Places> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Places::default()),
        Err(error) => return Err(error),
    };
    let places: Places = serde_json::from_slice(&text)?;
    match places.format {
        FORMAT => Ok(places),
        found => Err(io::Error::other(format!(
            "{POSITION} is of format {found}, and only {FORMAT} is known"
        ))),
    }
}

/// Octets up to the end of the last whole line.
fn end_of_lines(file: &mut File) -> io::Result<u64> {
    const PIECE: u64 = 64 << 10;
    let mut end = file.metadata()?.len();
    while end > 0 {
        let begin = end.saturating_sub(PIECE);
        file.seek(SeekFrom::Start(begin))?;
        let mut piece = Vec::new();
        Read::by_ref(file)
            .take(end - begin)
            .read_to_end(&mut piece)?;
        if let Some(at) = piece.iter().rposition(|octet| *octet == b'\n') {
            return Ok(begin + at as u64 + 1);
        }
        end = begin;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use mail::{ByteSize, Span};

    use super::*;

    const NOW: u64 = 1_795_351_206_000;

    fn settings(folder: &Path) -> Export {
        Export {
            folder: folder.join("events"),
            rotate_size: ByteSize::from_bytes(10),
            rotate_every: Span::from_secs(60),
            keep: Span::from_secs(365 * 86_400),
            keep_size: None,
            is_compressed: true,
        }
    }

    fn places(sequence: u64) -> Places {
        let mut places = Places::default();
        places.set("0".to_owned(), sequence);
        places
    }

    fn put(folder: &mut Folder, lines: &[u8], places: &Places, now_ms: u64) -> io::Result<()> {
        if !lines.is_empty() {
            folder.append(lines, places, now_ms)?;
        }
        folder.maintain(places, now_ms)
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder.join("events")).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with("events-"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn files_are_finished_by_size_and_age_and_compressed() {
        let root = tempfile::tempdir().unwrap();
        let (mut folder, found) = Folder::open(settings(root.path()), NOW).unwrap();
        assert_eq!(found.get("0"), 0);
        put(&mut folder, b"{\"a\":1}\n", &places(1), NOW).unwrap();
        assert!(names(root.path()).is_empty());
        put(&mut folder, b"{\"a\":2}\n", &places(2), NOW).unwrap();
        let first = "events-20261122T124006Z-00000000.jsonl.zst";
        assert_eq!(names(root.path()), [first]);
        let packed = fs::read(root.path().join("events").join(first)).unwrap();
        let text = zstd::decode_all(&packed[..]).unwrap();
        assert_eq!(text, b"{\"a\":1}\n{\"a\":2}\n");
        // Nothing is in the file that comes next, so that it does not age.
        put(&mut folder, b"", &places(2), NOW + 70_000).unwrap();
        put(&mut folder, b"{}\n", &places(3), NOW + 70_000).unwrap();
        put(&mut folder, b"", &places(3), NOW + 129_999).unwrap();
        assert_eq!(names(root.path()).len(), 1);
        put(&mut folder, b"", &places(3), NOW + 130_000).unwrap();
        let second = "events-20261122T124116Z-00000001.jsonl.zst";
        assert_eq!(names(root.path()), [first, second]);
    }

    #[test]
    fn after_a_crash_every_line_is_whole_and_the_position_is_that_of_the_disk() {
        let root = tempfile::tempdir().unwrap();
        let (mut folder, _) = Folder::open(settings(root.path()), NOW).unwrap();
        put(&mut folder, b"{}\n", &places(7), NOW).unwrap();
        let second = Folder::open(settings(root.path()), NOW).err().unwrap();
        assert!(second.to_string().contains("another process"), "{second}");
        drop(folder);
        let current = root.path().join("events").join(CURRENT);
        let mut torn = OpenOptions::new().append(true).open(&current).unwrap();
        torn.write_all(b"{\"torn\":").unwrap();
        let (mut folder, found) = Folder::open(settings(root.path()), NOW).unwrap();
        assert_eq!(found.get("0"), 7);
        put(&mut folder, b"{\"b\":1}\n", &places(8), NOW).unwrap();
        let packed = root.path().join("events").join(&names(root.path())[0]);
        let text = zstd::decode_all(&fs::read(packed).unwrap()[..]).unwrap();
        assert_eq!(text, b"{}\n{\"b\":1}\n");
        // Numbers go on after a restart.
        drop(folder);
        let (mut folder, _) = Folder::open(settings(root.path()), NOW).unwrap();
        put(&mut folder, b"{\"c\":12345}\n", &places(9), NOW).unwrap();
        assert!(names(root.path())[1].contains("-00000001."));
    }

    #[test]
    fn old_files_and_those_that_are_too_much_are_removed() {
        let root = tempfile::tempdir().unwrap();
        let mut few = settings(root.path());
        few.is_compressed = false;
        few.keep_size = Some(ByteSize::from_bytes(45));
        let now_ms = runtime::now_ms();
        let (mut folder, _) = Folder::open(few.clone(), now_ms).unwrap();
        for number in 0..5 {
            let line = b"{\"longer than ten\":1}\n";
            put(&mut folder, line, &places(number), now_ms).unwrap();
        }
        assert_eq!(names(root.path()).len(), 2);
        drop(folder);
        few.keep = Span::from_secs(60);
        let (mut folder, _) = Folder::open(few, now_ms).unwrap();
        put(&mut folder, b"", &places(5), now_ms + 120_000).unwrap();
        assert!(names(root.path()).is_empty());
    }

    #[test]
    fn what_cannot_be_compressed_keeps_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let mut plain = settings(root.path());
        plain.is_compressed = false;
        let now_ms = runtime::now_ms();
        let (mut folder, _) = Folder::open(plain.clone(), now_ms).unwrap();
        for number in 0..3 {
            let line = b"{\"longer than ten\":1}\n";
            put(&mut folder, line, &places(number), now_ms).unwrap();
        }
        let finished = names(root.path());
        // As when it is in the way: a draft there can't be made.
        let draft = format!("{}.zst.new", finished[1]);
        drop(folder);
        plain.is_compressed = true;
        let (folder, _) = Folder::open(plain.clone(), now_ms).unwrap();
        fs::create_dir(root.path().join("events").join(&draft)).unwrap();
        assert!(compress(&folder.path(&finished[1])).is_err());
        assert!(folder.remove(now_ms).is_err());
        fs::remove_dir(root.path().join("events").join(&draft)).unwrap();
        folder.make_room(now_ms).unwrap();
        assert_eq!(names(root.path()), finished);
        // Too much is removed before anything is compressed.
        fs::write(folder.path("events-0.jsonl"), b"broken").unwrap();
        drop(folder);
        plain.keep_size = Some(ByteSize::from_bytes(45));
        let (folder, _) = Folder::open(plain, now_ms).unwrap();
        folder.tidy(now_ms).unwrap();
        let left: Vec<String> = finished[1..]
            .iter()
            .map(|name| format!("{name}.zst"))
            .collect();
        assert_eq!(names(root.path()), left);
    }
}
