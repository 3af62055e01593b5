-- What the embedded database holds when it is new: a sample to replace with
-- tables like those of your own database.
CREATE TABLE books (
	id integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
	title text NOT NULL
);
INSERT INTO books (title) VALUES ('The Art of Computer Programming');
