//! `cmsgpack`: what scripts keep, as MessagePack. Lists, texts and numbers only, which is what they have.

use mlua::{Lua, String as Text, Value};

/// What a value is, in its first octet.
const TEXT: u8 = 0xdb;
const LIST: u8 = 0xdd;
const NUMBER: u8 = 0xcb;

pub fn pack(lua: &Lua, value: Value) -> mlua::Result<Text> {
    let mut octets = Vec::new();
    put(&mut octets, &value)?;
    lua.create_string(octets)
}

fn put(octets: &mut Vec<u8>, value: &Value) -> mlua::Result<()> {
    match value {
        Value::Integer(number) => put_number(octets, *number as f64),
        Value::Number(number) => put_number(octets, *number),
        Value::String(text) => {
            octets.push(TEXT);
            put_length(octets, text.as_bytes().len());
            octets.extend_from_slice(&text.as_bytes());
        }
        Value::Table(table) => {
            octets.push(LIST);
            put_length(octets, table.raw_len());
            for value in table.sequence_values::<Value>() {
                put(octets, &value?)?;
            }
        }
        other => {
            let problem = format!("{} can't be packed", other.type_name());
            return Err(mlua::Error::runtime(problem));
        }
    }
    Ok(())
}

fn put_number(octets: &mut Vec<u8>, number: f64) {
    octets.push(NUMBER);
    octets.extend_from_slice(&number.to_be_bytes());
}

fn put_length(octets: &mut Vec<u8>, length: usize) {
    let length = u32::try_from(length).expect("scripts keep little");
    octets.extend_from_slice(&length.to_be_bytes());
}

pub fn unpack(lua: &Lua, text: Text) -> mlua::Result<Value> {
    get(lua, &mut &text.as_bytes()[..])
}

fn get(lua: &Lua, octets: &mut &[u8]) -> mlua::Result<Value> {
    let kind = take::<1>(octets)?[0];
    Ok(match kind {
        NUMBER => Value::Number(f64::from_be_bytes(take(octets)?)),
        TEXT => {
            let length = u32::from_be_bytes(take(octets)?) as usize;
            let (text, rest) = octets.split_at_checked(length).ok_or_else(cut)?;
            *octets = rest;
            Value::String(lua.create_string(text)?)
        }
        LIST => {
            let length = u32::from_be_bytes(take(octets)?);
            let values = (0..length).map(|_| get(lua, octets));
            let values = values.collect::<mlua::Result<Vec<_>>>()?;
            Value::Table(lua.create_sequence_from(values)?)
        }
        _ => return Err(mlua::Error::runtime("an unknown kind of value")),
    })
}

fn take<const N: usize>(octets: &mut &[u8]) -> mlua::Result<[u8; N]> {
    let (taken, rest) = octets.split_first_chunk().ok_or_else(cut)?;
    *octets = rest;
    Ok(*taken)
}

fn cut() -> mlua::Error {
    mlua::Error::runtime("the packed value is cut")
}
