CREATE TABLE leases6 (
  address TEXT   PRIMARY KEY,
  client  TEXT   NOT NULL,
  state   TEXT   NOT NULL,
  granted BIGINT NOT NULL,
  expires BIGINT NOT NULL
);
