/** The handlers of a project, beside `fetch`, which tests of features import. */
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
