CREATE TABLE hosts (
  id         TEXT   PRIMARY KEY,
  state      TEXT   NOT NULL,
  rev        BIGINT NOT NULL,
  capability TEXT   NOT NULL,
  deadline   BIGINT NOT NULL,
  doc        TEXT   NOT NULL
);
CREATE INDEX hosts_capability ON hosts (capability);
CREATE INDEX hosts_deadline ON hosts (deadline);

CREATE TABLE claims (
  claim TEXT NOT NULL,
  host  TEXT NOT NULL,
  PRIMARY KEY (claim, host)
);
CREATE INDEX claims_host ON claims (host);

CREATE TABLE events (
  subject TEXT   NOT NULL,
  seq     BIGINT NOT NULL,
  at      BIGINT NOT NULL,
  last_at BIGINT NOT NULL,
  count   BIGINT NOT NULL,
  hash    TEXT   NOT NULL,
  doc     TEXT   NOT NULL,
  PRIMARY KEY (subject, seq)
);

CREATE TABLE leases (
  mac     TEXT   PRIMARY KEY,
  address TEXT   NOT NULL,
  state   TEXT   NOT NULL,
  granted BIGINT NOT NULL,
  expires BIGINT NOT NULL
);
CREATE UNIQUE INDEX leases_address ON leases (address);
