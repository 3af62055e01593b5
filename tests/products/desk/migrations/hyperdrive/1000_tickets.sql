CREATE TABLE tickets (id text PRIMARY KEY, subject text NOT NULL);
INSERT INTO tickets VALUES ('t1', 'The lamp is broken');
