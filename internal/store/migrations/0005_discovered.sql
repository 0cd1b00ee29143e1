CREATE TABLE discovered (
  id    TEXT   PRIMARY KEY,
  heard BIGINT NOT NULL,
  doc   TEXT   NOT NULL
);
CREATE INDEX discovered_heard ON discovered (heard);
