-- A sample from the template: replace it with a table of your own. It does no
-- harm where there is such a table.
CREATE TABLE IF NOT EXISTS books (
	id integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
	title text NOT NULL UNIQUE
);
