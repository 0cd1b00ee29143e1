ALTER TABLE events ADD COLUMN lasting BIGINT NOT NULL DEFAULT 1;

ALTER TABLE leases RENAME TO leases_by_client;
CREATE TABLE leases (
  address TEXT   PRIMARY KEY,
  mac     TEXT   NOT NULL,
  state   TEXT   NOT NULL,
  granted BIGINT NOT NULL,
  expires BIGINT NOT NULL
);
INSERT INTO leases (address, mac, state, granted, expires) SELECT address, mac, state, granted, expires FROM leases_by_client;
DROP TABLE leases_by_client;
CREATE INDEX leases_mac ON leases (mac);
