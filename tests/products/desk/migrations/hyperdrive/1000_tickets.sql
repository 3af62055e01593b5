CREATE TABLE tickets (id text PRIMARY KEY, subject text NOT NULL);
