"""The console: the pages on which people see and steer the migration (cutover.md; docs/console.md).

Server-rendered, no build step, no outside host. What a page shows or does is a function of the bridge or of the core
API; here stand the frame (`frame`), who may what (`access`), who has signed in (`session`) and the pages.
"""
