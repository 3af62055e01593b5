/** What tests of features import from a project: its handlers, beside `fetch`. */
declare module "*/src/index" {
	const worker: {
		queue(
			batch: MessageBatch<unknown>,
			env: Env,
			ctx: ExecutionContext,
		): Promise<void>;
		scheduled(
			controller: ScheduledController,
			env: Env,
			ctx: ExecutionContext,
		): Promise<void>;
	};
	export default worker;
}
