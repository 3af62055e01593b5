/** What tests of features import from a project: its handlers, beside `fetch`. */
declare module "*/src/index" {
	const worker: {
		queue(batch: MessageBatch<unknown>, env: Env): Promise<void>;
		scheduled(controller: ScheduledController, env: Env): Promise<void>;
	};
	export default worker;
}
