//! A simulated Redis: the production scripts in the Lua of Redis, over a memory with a clock of its own.
//!
//! It can be emptied, restarted from an old copy (as after a fail-over to a replica that was behind), and its clock can
//! be set back.

mod packing;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use limits::{Answer, Command, Words};
use mlua::{Function, Lua, Value, Variadic};

/// First part of every key.
pub const PREFIX: &str = "sim";

#[derive(Debug, Clone)]
enum Stored {
    Text(Vec<u8>),
    Fields(BTreeMap<Vec<u8>, Vec<u8>>),
}

#[derive(Debug, Clone)]
struct Entry {
    stored: Stored,
    /// By its clock, milliseconds.
    expires_ms: Option<u64>,
}

#[derive(Debug, Default, Clone)]
struct Memory {
    keys: HashMap<Vec<u8>, Entry>,
    now_ms: u64,
}

/// A server. See the module.
pub struct Server {
    lua: Lua,
    scripts: HashMap<String, Function>,
    memory: Rc<RefCell<Memory>>,
    /// An older state of its memory, that of a replica.
    old: Memory,
    /// Its clock is behind by so much, milliseconds.
    behind_ms: u64,
    pub run_id: String,
    /// Counts its lives: a connection belongs to one.
    pub life: u64,
}

impl Server {
    pub fn new(words: &Words) -> Self {
        let lua = Lua::new();
        let memory = Rc::<RefCell<Memory>>::default();
        lend(&lua, &memory).expect("the functions of Redis can be made");
        let load = |(hash, text): (String, &str)| {
            let function = lua.load(text).into_function();
            (hash, function.expect("the scripts are Lua"))
        };
        Self {
            scripts: words.scripts().into_iter().map(load).collect(),
            lua,
            memory,
            old: Memory::default(),
            behind_ms: 0,
            run_id: "run-0".to_owned(),
            life: 0,
        }
    }

    /// All that it knows is gone; its process and connections stay.
    pub fn empty(&mut self) {
        self.memory.borrow_mut().keys.clear();
    }

    /// Its process starts anew, without memory or with that of the last [`Server::copy`].
    pub fn restart(&mut self, from_copy: bool) {
        self.life += 1;
        self.run_id = format!("run-{}", self.life);
        let keys = match from_copy {
            true => self.old.keys.clone(),
            false => HashMap::new(),
        };
        self.memory.borrow_mut().keys = keys;
    }

    /// A replica has what there is now.
    pub fn copy(&mut self) {
        self.old = self.memory.borrow().clone();
    }

    /// Somebody sets its clock back.
    pub fn set_back(&mut self, by_ms: u64) {
        self.behind_ms += by_ms;
    }

    /// Commands that come at once, as a pipeline does.
    pub fn run(&mut self, now_ms: u64, commands: &[Command]) -> Vec<Answer> {
        self.memory.borrow_mut().now_ms = now_ms - self.behind_ms;
        let run = |command: &Command| match &command[0][..] {
            b"EVALSHA" => {
                let script = &self.scripts[&*String::from_utf8_lossy(&command[1])];
                self.evaluate(script, command)
            }
            _ => {
                let answered = self.memory.borrow_mut().call(command);
                answered.unwrap_or_else(|| panic!("{:?} is not known", words(command)))
            }
        };
        commands.iter().map(run).collect()
    }

    fn evaluate(&self, script: &Function, command: &Command) -> Answer {
        let [_, _, keys, arguments @ ..] = &command[..] else {
            panic!("{:?} has no keys", words(command));
        };
        let keys: usize = String::from_utf8_lossy(keys).parse().expect("a number");
        let (keys, arguments) = arguments.split_at(keys);
        let run = || {
            let texts = |list: &[Vec<u8>]| {
                let texts = list.iter().map(|text| self.lua.create_string(text));
                self.lua
                    .create_sequence_from(texts.collect::<mlua::Result<Vec<_>>>()?)
            };
            self.lua.globals().set("KEYS", texts(keys)?)?;
            self.lua.globals().set("ARGV", texts(arguments)?)?;
            answer(script.call::<Value>(())?)
        };
        run().unwrap_or_else(|error| panic!("{:?}: {error}", words(command)))
    }
}

fn words(command: &Command) -> Vec<String> {
    let word = |word: &Vec<u8>| String::from_utf8_lossy(word).into_owned();
    command.iter().map(word).collect()
}

/// As Redis turns what a script gives into an answer.
fn answer(value: Value) -> mlua::Result<Answer> {
    Ok(match value {
        Value::Nil | Value::Boolean(false) => Answer::Nothing,
        Value::Boolean(true) => Answer::Number(1),
        Value::Integer(number) => Answer::Number(number),
        // Without what is after the point.
        Value::Number(number) => Answer::Number(number as i64),
        Value::String(text) => Answer::Text(text.as_bytes().to_vec()),
        Value::Table(table) => {
            let values = table.sequence_values::<Value>();
            Answer::Several(
                values
                    .map(|value| answer(value?))
                    .collect::<mlua::Result<_>>()?,
            )
        }
        other => panic!("a script gives {other:?}"),
    })
}

/// Gives scripts what they may call.
fn lend(lua: &Lua, memory: &Rc<RefCell<Memory>>) -> mlua::Result<()> {
    let memory = memory.clone();
    let call = lua.create_function(move |lua, values: Variadic<Value>| {
        let command = values.iter().map(argument).collect();
        let answered = memory.borrow_mut().call(&command);
        let answered = answered
            .ok_or_else(|| mlua::Error::runtime(format!("{:?} is not known", words(&command))))?;
        to_lua(lua, &answered)
    })?;
    let redis = lua.create_table()?;
    redis.set("call", call)?;
    lua.globals().set("redis", redis)?;
    let cmsgpack = lua.create_table()?;
    cmsgpack.set("pack", lua.create_function(packing::pack)?)?;
    cmsgpack.set("unpack", lua.create_function(packing::unpack)?)?;
    lua.globals().set("cmsgpack", cmsgpack)
}

fn argument(value: &Value) -> Vec<u8> {
    match value {
        Value::String(text) => text.as_bytes().to_vec(),
        Value::Integer(number) => number.to_string().into_bytes(),
        Value::Number(number) => number.to_string().into_bytes(),
        other => panic!("{other:?} is no argument"),
    }
}

fn to_lua(lua: &Lua, answered: &Answer) -> mlua::Result<Value> {
    Ok(match answered {
        Answer::Nothing => Value::Boolean(false),
        Answer::Number(number) => Value::Number(*number as f64),
        Answer::Text(text) => Value::String(lua.create_string(text)?),
        Answer::Several(answers) => {
            let values = answers.iter().map(|answered| to_lua(lua, answered));
            let values = values.collect::<mlua::Result<Vec<_>>>()?;
            Value::Table(lua.create_sequence_from(values)?)
        }
    })
}

impl Memory {
    /// The commands that are used; `None` = another one.
    fn call(&mut self, command: &Command) -> Option<Answer> {
        let number = |word: &[u8]| -> u64 {
            let word = String::from_utf8_lossy(word);
            word.parse()
                .unwrap_or_else(|_| panic!("{word} is no number"))
        };
        let [name, arguments @ ..] = &command[..] else {
            return None;
        };
        if let Some(key) = arguments.first() {
            self.forget(key);
        }
        Some(match (&name[..], arguments) {
            (b"TIME", []) => {
                let (seconds, part) = (self.now_ms / 1000, self.now_ms % 1000 * 1000);
                let texts = [seconds, part].map(|number| Answer::Text(number.to_string().into()));
                Answer::Several(texts.to_vec())
            }
            (b"GET", [key]) => match self.keys.get(key).map(|entry| &entry.stored) {
                Some(Stored::Text(text)) => Answer::Text(text.clone()),
                _ => Answer::Nothing,
            },
            (b"SET", [key, text, px, ms]) if px == b"PX" => {
                let entry = Entry {
                    stored: Stored::Text(text.clone()),
                    expires_ms: Some(self.now_ms + number(ms)),
                };
                self.keys.insert(key.clone(), entry);
                Answer::Text(b"OK".to_vec())
            }
            (b"DEL", [key]) => Answer::Number(i64::from(self.keys.remove(key).is_some())),
            (b"HMGET", [key, fields @ ..]) => {
                Answer::Several(fields.iter().map(|field| self.field(key, field)).collect())
            }
            (b"HGET", [key, field]) => self.field(key, field),
            (b"HSET", [key, pairs @ ..]) => {
                let entry = self.keys.entry(key.clone()).or_insert_with(|| Entry {
                    stored: Stored::Fields(BTreeMap::new()),
                    expires_ms: None,
                });
                if let Stored::Fields(fields) = &mut entry.stored {
                    let pairs = pairs
                        .chunks(2)
                        .map(|pair| (pair[0].clone(), pair[1].clone()));
                    fields.extend(pairs);
                }
                Answer::Number(1)
            }
            _ => return None,
        })
    }

    fn field(&self, key: &[u8], field: &[u8]) -> Answer {
        match self.keys.get(key).map(|entry| &entry.stored) {
            Some(Stored::Fields(fields)) => match fields.get(field) {
                Some(text) => Answer::Text(text.clone()),
                None => Answer::Nothing,
            },
            _ => Answer::Nothing,
        }
    }

    /// What has run out is not there.
    fn forget(&mut self, key: &[u8]) {
        let over = |entry: &Entry| entry.expires_ms.is_some_and(|at_ms| at_ms <= self.now_ms);
        if self.keys.get(key).is_some_and(over) {
            self.keys.remove(key);
        }
    }
}
