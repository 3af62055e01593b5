// Keeps what the runtime says about errors that tests cause on purpose, and shows
// it when a test fails. Vitest in watch mode shows all of it at once.
const NOISE = /^(uncaught )?exception[ ;=]|^stack: |^console warning;/;

if (process.argv.includes("run")) {
	let kept = "";
	const show = process.stderr.write.bind(process.stderr);
	for (const stream of [process.stdout, process.stderr]) {
		const write = stream.write.bind(stream);
		stream.write = (text, ...options) => {
			if (!NOISE.test(String(text))) {
				return write(text, ...options);
			}
			kept += text;
			return true;
		};
	}
	process.on("exit", (code) => code !== 0 && show(kept));
}
