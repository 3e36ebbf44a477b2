-- The first schema. It must work on SQLite and PostgreSQL alike: TEXT for times (RFC 3339, UTC, fixed width, so that they sort),
-- JSON as TEXT, no dialect's own types. A schema that has been released is never edited; add the next number instead.

-- What came in, raw, before anyone understood it. state: received, accepted or rejected.
CREATE TABLE inbox (
    id            TEXT PRIMARY KEY,
    source        TEXT NOT NULL,
    headers       TEXT NOT NULL,
    body          TEXT NOT NULL,
    size          BIGINT NOT NULL,
    received_at   TEXT NOT NULL,
    state         TEXT NOT NULL,
    problem       TEXT NOT NULL,
    investigation TEXT,
    settled_at    TEXT
);
CREATE INDEX inbox_unprocessed ON inbox (received_at) WHERE state = 'received';

-- The newest investigation of each trigger key. Its row is what concurrent deliveries of one incident wait for.
CREATE TABLE incidents (
    key           TEXT PRIMARY KEY,
    investigation TEXT NOT NULL
);

-- Where each investigation stands. Everything large about it lies elsewhere: this row is written with every journal entry.
-- lease numbers its owners, entries counts its journal. run numbers what was put on the queue, began and finished how far that
-- came, runner is the execution that holds it, again says that something arrived which this run may not have seen, due is when
-- another run is wanted, or ''.
CREATE TABLE investigations (
    id            TEXT PRIMARY KEY,
    status        TEXT NOT NULL,
    why           TEXT NOT NULL,
    kind          TEXT NOT NULL,
    title         TEXT NOT NULL,
    service       TEXT NOT NULL,
    severity      TEXT NOT NULL,
    created_at    TEXT NOT NULL,
    updated_at    TEXT NOT NULL,
    lease         BIGINT NOT NULL,
    worker        TEXT NOT NULL,
    entries       BIGINT NOT NULL,
    run           BIGINT NOT NULL,
    began         BIGINT NOT NULL,
    finished      BIGINT NOT NULL,
    runner        TEXT NOT NULL,
    again         BIGINT NOT NULL,
    due           TEXT NOT NULL
);
CREATE INDEX investigations_by_status ON investigations (status, id);
CREATE INDEX investigations_outstanding ON investigations (id) WHERE run > finished;
CREATE INDEX investigations_due ON investigations (due) WHERE due <> '';

CREATE TABLE cases (
    investigation TEXT PRIMARY KEY REFERENCES investigations (id),
    data          TEXT NOT NULL
);

-- The journal. seq counts from 1 without gaps.
CREATE TABLE entries (
    investigation TEXT NOT NULL REFERENCES investigations (id),
    seq           BIGINT NOT NULL,
    kind          TEXT NOT NULL,
    at            TEXT NOT NULL,
    data          TEXT NOT NULL,
    PRIMARY KEY (investigation, seq)
);

CREATE TABLE reports (
    investigation TEXT PRIMARY KEY REFERENCES investigations (id),
    service       TEXT NOT NULL,
    written_at    TEXT NOT NULL,
    data          TEXT NOT NULL
);
CREATE INDEX reports_by_service ON reports (service, investigation);

-- What is said to an investigation. number counts from 1; a key is told once.
CREATE TABLE messages (
    investigation TEXT NOT NULL REFERENCES investigations (id),
    number        BIGINT NOT NULL,
    at            TEXT NOT NULL,
    kind          TEXT NOT NULL,
    author        TEXT NOT NULL,
    text          TEXT NOT NULL,
    key           TEXT NOT NULL,
    data          TEXT NOT NULL,
    PRIMARY KEY (investigation, number),
    UNIQUE (investigation, key)
);

CREATE TABLE deployments (
    id            TEXT PRIMARY KEY,
    service       TEXT NOT NULL,
    timestamp     TEXT NOT NULL,
    data          TEXT NOT NULL
);
CREATE INDEX deployments_by_time ON deployments (timestamp);

-- The processes that run investigations. beat is in seconds by the database's clock.
CREATE TABLE executors (
    id            TEXT PRIMARY KEY,
    host          TEXT NOT NULL,
    pid           BIGINT NOT NULL,
    beat          DOUBLE PRECISION NOT NULL
);
