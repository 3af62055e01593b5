// Applies the migrations to the database that DATABASE_URL names.
import { migrate } from "./hyperdrive-migrations.mjs";

const { DATABASE_URL } = process.env;
try {
	if (!DATABASE_URL) {
		throw new Error(
			"Set DATABASE_URL to postgres://USER:PASSWORD@HOST:PORT/DATABASE.",
		);
	}
	const applied = await migrate(DATABASE_URL);
	for (const name of applied) {
		console.log(`Applied migrations/hyperdrive/${name}`);
	}
	console.log(`Migrations applied: ${applied.length}`);
} catch (error) {
	console.error(error.message);
	process.exit(1);
}
