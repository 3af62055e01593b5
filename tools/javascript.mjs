// Derives the JavaScript of parts from their TypeScript: `node tools/javascript.mjs FOLDER`.
// Takes the types out, with what is said of them, and lets the formatter close the holes.
// Fails where TypeScript is more than JavaScript with types, as an `enum` is.

import { execFileSync } from "node:child_process";
import { globSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { blankSourceFile } from "ts-blank-space";

const root = path.dirname(import.meta.dirname);
const folder = path.resolve(process.argv[2]);
const { resolve } = createRequire(import.meta.url);
// The one with a parser; ours has none.
const ts = createRequire(resolve("ts-blank-space"))("typescript");

/** Runs the formatter in the folder; returns what it prints. */
function format(options, input) {
	const biome = resolve("@biomejs/biome/bin/biome");
	return execFileSync(process.execPath, [biome, "format", ...options], {
		cwd: folder,
		input,
		encoding: "utf8",
		stdio: ["pipe", "pipe", "inherit"],
	});
}

function isOfTypes(node) {
	return (
		ts.isTypeAliasDeclaration(node) ||
		ts.isInterfaceDeclaration(node) ||
		(ts.isModuleDeclaration(node) && ts.isStringLiteral(node.name)) ||
		(ts.isImportDeclaration(node) && node.importClause?.isTypeOnly)
	);
}

/** Returns the JavaScript of TypeScript, not yet formatted. */
function javascript(file, code) {
	const parse = (text) => {
		const kind = file.endsWith("x") ? ts.ScriptKind.TSX : ts.ScriptKind.TS;
		return ts.createSourceFile(file, text, ts.ScriptTarget.Latest, true, kind);
	};
	const source = parse(code);
	let text = "";
	let end = 0;
	(function keepOthers(node) {
		if (isOfTypes(node)) {
			// With its doc comment, and with its line.
			text += code.slice(end, node.getStart(source, true)).trimEnd();
			end = node.end;
		} else {
			ts.forEachChild(node, keepOthers);
		}
	})(source);
	text += code.slice(end);
	const blank = blankSourceFile(parse(text), (node) => {
		console.error(`${file}: ${ts.SyntaxKind[node.kind]} is not erasable.`);
		process.exitCode = 1;
	});
	// So that an editor knows `c.env`.
	const type = "/** @type {Hono<{ Bindings: Env }>} */\n";
	return blank.replace(/^export const \w+ = new Hono\b/gm, `${type}$&`);
}

/** Returns a guide with its blocks of code in JavaScript. */
function guide(file, text) {
	return text.replace(/(?<=^```ts\n).*?(?=^```$)/gms, (code) =>
		format(["--stdin-file-path=guide.js"], javascript(file, code)),
	);
}

const sources = globSync(
	"{base,providers,features}/**/{*.ts,*.tsx,guide.md.jinja}",
	{ cwd: root, exclude: ["**/contract.test.ts"] },
);
mkdirSync(folder, { recursive: true });
for (const file of sources) {
	const text = readFileSync(path.join(root, file), "utf8");
	const isGuide = file.endsWith(".jinja");
	const derived = (isGuide ? guide : javascript)(file, text);
	// A guide without types holds for both languages.
	if (!isGuide || derived !== text) {
		const target = path.join(folder, file.replace(/\.ts(x?)$/, ".js$1"));
		mkdirSync(path.dirname(target), { recursive: true });
		writeFileSync(target, derived);
	}
}
format(["--write", "."]);
