ALTER TABLE books ADD COLUMN isbn text UNIQUE;
CREATE INDEX books_title ON books (title);
