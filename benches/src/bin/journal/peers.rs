//! The peers, each with its defaults, but for the titles of the tables.

use std::path::Path;
use std::sync::Mutex;

use fjall::PersistMode;
use redb::{Durability, ReadableDatabase as _, TableDefinition};
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::stores::Store;

const TABLE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");

/// redb. A put is a transaction that is not durable: after a kill, the database is as it was at the
/// last durable one.
pub(crate) struct Redb(redb::Database);

impl Redb {
    pub(crate) fn open(folder: &Path) -> Self {
        Self(redb::Database::create(folder.join("a.redb")).expect("the folder is ours"))
    }

    fn write(&self, durability: Durability, entries: &mut dyn Iterator<Item = (&str, &[u8])>) {
        let mut transaction = self.0.begin_write().expect("the disk works");
        transaction.set_durability(durability).expect("no savepoint was made");
        {
            let mut table = transaction.open_table(TABLE).expect("our table");
            for (key, value) in entries {
                table.insert(key, value).expect("there is room");
            }
        }
        transaction.commit().expect("there is room");
    }
}

impl Store for Redb {
    fn put(&self, key: &str, value: &[u8]) {
        self.write(Durability::None, &mut std::iter::once((key, value)));
    }

    fn fill(&self, entries: &mut dyn Iterator<Item = (String, Vec<u8>)>) {
        let transaction = self.0.begin_write().expect("the disk works");
        {
            let mut table = transaction.open_table(TABLE).expect("our table");
            for (key, value) in entries {
                table.insert(key.as_str(), value.as_slice()).expect("there is room");
            }
        }
        transaction.commit().expect("there is room");
    }

    fn change(&self, entries: Vec<(String, Vec<u8>)>) {
        let mut entries = entries.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
        self.write(Durability::Immediate, &mut entries);
    }

    fn put_durably(&self, key: &str, value: &[u8]) {
        self.write(Durability::Immediate, &mut std::iter::once((key, value)));
    }

    fn sync(&self) {
        self.write(Durability::Immediate, &mut std::iter::empty());
    }

    fn get(&self, key: &str) -> Option<usize> {
        let transaction = self.0.begin_read().expect("a snapshot");
        let table = transaction.open_table(TABLE).expect("our table");
        table.get(key).expect("the disk works").map(|value| value.value().len())
    }

    fn close(self: Box<Self>) {}
}

/// fjall. A put is in its journal, with the system, when the call returns.
pub(crate) struct Fjall {
    database: fjall::Database,
    records: fjall::Keyspace,
}

impl Fjall {
    pub(crate) fn open(folder: &Path) -> Self {
        let database = fjall::Database::builder(folder.join("fjall")).open().expect("the folder is ours");
        let records = database.keyspace("records", fjall::KeyspaceCreateOptions::default);
        Self { records: records.expect("a keyspace"), database }
    }
}

impl Store for Fjall {
    fn put(&self, key: &str, value: &[u8]) {
        self.records.insert(key, value).expect("there is room");
    }

    fn change(&self, entries: Vec<(String, Vec<u8>)>) {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        entries.iter().for_each(|(key, value)| batch.insert(&self.records, key.as_str(), value.as_slice()));
        batch.commit().expect("there is room");
    }

    fn sync(&self) {
        self.database.persist(PersistMode::SyncData).expect("the disk works");
    }

    fn get(&self, key: &str) -> Option<usize> {
        self.records.get(key).expect("the disk works").map(|value| value.len())
    }

    fn close(self: Box<Self>) {
        self.sync();
    }
}

/// `SQLite` in WAL mode: a table of keys and values, and one connection for all threads.
pub(crate) struct Sqlite(Mutex<Connection>);

const INSERT: &str = "INSERT OR REPLACE INTO records VALUES (?1, ?2)";

impl Sqlite {
    pub(crate) fn open(folder: &Path, synchronous: &str) -> Self {
        let connection = Connection::open(folder.join("a.sqlite")).expect("the folder is ours");
        let pragmas = format!("PRAGMA journal_mode=WAL; PRAGMA synchronous={synchronous};");
        let table = "CREATE TABLE IF NOT EXISTS records (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID";
        connection.execute_batch(&format!("{pragmas} {table}")).expect("valid SQL");
        Self(Mutex::new(connection))
    }

    fn write(&self, entries: &mut dyn Iterator<Item = (String, Vec<u8>)>) {
        let mut connection = self.0.lock().expect("no writer panicked");
        let transaction = connection.transaction().expect("nobody else writes");
        {
            let mut insert = transaction.prepare_cached(INSERT).expect("valid SQL");
            for (key, value) in entries {
                insert.execute(params![key, value]).expect("there is room");
            }
        }
        transaction.commit().expect("there is room");
    }
}

impl Store for Sqlite {
    fn put(&self, key: &str, value: &[u8]) {
        let connection = self.0.lock().expect("no writer panicked");
        let mut insert = connection.prepare_cached(INSERT).expect("valid SQL");
        insert.execute(params![key, value]).expect("there is room");
    }

    fn fill(&self, entries: &mut dyn Iterator<Item = (String, Vec<u8>)>) {
        self.write(entries);
    }

    fn sync(&self) {} // A commit is durable, with `synchronous=FULL`.

    fn get(&self, key: &str) -> Option<usize> {
        let connection = self.0.lock().expect("no writer panicked");
        let mut select =
            connection.prepare_cached("SELECT value FROM records WHERE key = ?1").expect("valid SQL");
        let value = select.query_row(params![key], |row| Ok(row.get_ref(0)?.as_blob()?.len()));
        value.optional().expect("the disk works")
    }

    fn close(self: Box<Self>) {}
}
