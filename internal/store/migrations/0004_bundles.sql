CREATE TABLE bundles (
  digest  TEXT   PRIMARY KEY,
  name    TEXT   NOT NULL,
  version TEXT   NOT NULL,
  rev     BIGINT NOT NULL,
  doc     TEXT   NOT NULL
);
CREATE UNIQUE INDEX bundles_version ON bundles (name, version);
CREATE TABLE bundle_aliases (
  name TEXT   PRIMARY KEY,
  rev  BIGINT NOT NULL,
  doc  TEXT   NOT NULL
);
