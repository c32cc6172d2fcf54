import { connect } from "./page.js";
import { servePublishing } from "./publishing.js";

servePublishing(connect());
