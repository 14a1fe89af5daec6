// The types of the stage's data: what travels between server and stage (see protocol.json), and what the
// model holds.

import type { PlotTrace } from "./plotly";

export type Branch = "uncapped" | "capped" | "steered";
export type ByBranch<T> = Record<Branch, T>;
export type Finish = "stop" | "sentence" | "length" | "cancelled" | "failed";
/** Coordinates on the persona map: [PC1, PC2, PC3]. */
export type Place = number[];
export type Range = [low: number, high: number];

/** A token as the server sends it. Projections are in axis units. */
export interface Token {
  /** Its text. */
  t: string;
  /** The projection after the cap; null if it was not recorded. */
  a?: number | null;
  /** The projection before the cap; left out where it is the same. */
  b?: number | null;
  /** 1 for a token of the template or the end, which is not shown. */
  s?: number;
  /** 1 for a token of the reasoning. */
  r?: number;
  /** What the cap added at each capped layer, in axis units of that layer. */
  k?: number[];
  /** Its probability. */
  p?: number | null;
  /** When it was generated, in milliseconds after the first one; only in recordings. */
  m?: number | null;
  /** Its coordinates on the persona map; only in recordings. */
  x?: number[];
  /** The projection as the unsteered model reads the same words. */
  q?: number | null;
  /** The projections along the directions that are read along, each in its own units. */
  g?: number[];
  /** What the second cap added, in units of its direction. */
  z?: number;
  /** The likeliest tokens at its place, the likeliest first; not while the reply is being written. */
  l?: Alternative[];
  /** The same as the unsteered model would go on after the same words. */
  o?: Alternative[];
  /** 1 for a token that the reply was made to begin with. */
  f?: number;
}

/** A token that could have come, with its probability at temperature 1. */
export type Alternative = [id: number, text: string, probability: number];

/**
 * A token that is shown. `c`: what the cap along the axis added at all layers together; 0 where it did not act.
 * `acted`: whether any cap acted. `second`: its projection along the second direction.
 */
export interface VisibleToken extends Token {
  c: number;
  acted: boolean;
  second: number | null;
}

/** How far a reply's mean state lies from that of an earlier reply of its branch. */
export interface Shift {
  /** In axis units. */
  length: number;
  /** The part along the axis, in axis units. */
  along: number;
  /** The share of the squared length that lies along the axis. */
  share: number;
}

/** The figures that summarise a reply. */
export interface ReplySummary {
  finish?: Finish | null;
  fault?: string;
  mean?: number | null;
  reasoning_mean?: number | null;
  user_mean?: number | null;
  /** Where it begins: the projection of the prompt's last token, in axis units. */
  start?: number;
  fired?: number | null;
  count?: number | null;
  limit?: number | null;
  place?: Place | null;
  /** The mean projection as the unsteered model reads the same words. */
  plain_mean?: number;
  /** The mean projection along each direction that is read along. */
  along?: number[];
  /** Of the means of this reply and its further samples; only where there are any. */
  seeds?: SeedMean;
  /** Since the branch's first reply. */
  shift?: Shift;
  /** Since the branch's reply before. */
  step?: Shift;
}

/** A mean over seeds with its 95% interval, axis units. */
export interface SeedMean {
  count: number;
  mean: number;
  low: number;
  high: number;
}

/** A reply to the same message with other random numbers. */
export interface SampleData extends ReplySummary {
  text: string;
}

export interface ReplyData extends ReplySummary {
  tokens?: Token[];
  samples?: SampleData[];
  /** Only in recordings, of the replies whose layers were looked at. */
  layers?: KeptLayers;
  /** The text with its Markdown rendered. */
  html?: string | null;
}

/** The capped layers, and the floor of each in raw units. */
interface Band {
  layers: number[];
  floors: number[];
}

/** `only_below`: the cap acts only on a reply that begins below so many axis units. */
interface Conditional {
  only_below?: number;
}

/** How a turn was answered; see "settings" in docs/session-file.md. */
export interface TurnSettings {
  /** Null: the cap was off. */
  cap: (Conditional & { floor_name: string | null; floor: number | null } & Band) | null;
  steer?: { layer: number; alpha: number; direction?: string };
  /** A cap along another direction; `downward`: it keeps the projection from rising. */
  also?: Conditional & { direction: string; downward: boolean } & Band;
  /** The directions that are read along. */
  along?: string[];
  /** The one of them that the charts show as a second line. */
  second?: string;
  /** The capped words are read without the cap, too. */
  plain?: boolean;
  only?: Branch;
  seed: number;
  seeds: number;
  temperature: number;
  top_p: number;
  repetition_penalty: number;
  max_new_tokens: number;
  /** Missing in files of earlier versions. */
  soft_limit?: number;
  thinking: boolean;
  span: "both" | "answer" | "reasoning";
  system_prompt: string;
  dtype: string;
  /** Digest of the chat template; missing in files of earlier versions. */
  template?: string;
  attempt: number;
  /** The replies came from elsewhere and were only read. */
  read?: boolean;
  /** What single branches had for themselves. */
  own?: Partial<ByBranch<OwnSettings>>;
}

/** What one branch had for itself in a turn; the rest it shared with the others. */
export interface OwnSettings {
  system_prompt?: string;
  temperature?: number;
  /** Of the steered branch only. */
  cap?: Conditional & { floor_name: string } & Band;
}

/** The reference lines of both charts for the settings of a turn. */
export interface TurnMarks {
  shapes: ChartShape[];
  annotations: ChartNote[];
  meta: Pick<ChartMeta, "floor" | "floor_label" | "cap_layers">;
}

export interface TurnData {
  user: string;
  branches?: Partial<ByBranch<ReplyData>>;
  settings?: TurnSettings;
  marks?: TurnMarks;
  /** How much higher the capped replies lie than the uncapped ones, over all seeds. */
  seed_gap?: SeedMean;
  /** More tokens follow. */
  live?: boolean;
}

/** One role of the persona map: its name, its place and its projection. */
export type Role = [name: string, place: Place, projection: number];

export interface PersonaMap {
  roles: Role[];
  default: Place;
  /** The shares of PC1 to PC3 in the variance; may be empty. */
  variance: number[];
  notes: string[];
}

/** What the server says of the map: the map, or why there is none. */
export type MapData = Partial<PersonaMap> & { missing?: string };

/** Where a reply's mean counts as what; see demo/axis/zones.py. */
export interface Zones {
  /** A mean below it lies in the first zone. */
  low: number;
  /** A mean above it lies in the last zone. */
  high: number;
  /** From the lowest zone to the highest. */
  names: [role: string, between: string, assistant: string];
  /** What the zones make of held-out replies, in one sentence. */
  measured: string;
}

/** `meta` of a chart's layout: what its reference lines show. */
export interface ChartMeta {
  probe_layer?: number;
  floor?: number | null;
  floor_label?: string | null;
  cap_layers?: [first: number, last: number] | null;
  /** Null or missing: no zones were measured for this axis. */
  zones?: Zones | null;
  assistant?: boolean;
}

/** `meta` of a trace: which series it shows. */
export interface TraceMeta {
  role: string;
  branch: Branch | "";
}

/** A trace of the two line charts. It shows one series, and always has its arrays. */
export interface ChartTrace extends PlotTrace {
  meta: TraceMeta;
  x: (number | null)[];
  y: (number | null)[];
  customdata?: unknown[];
  mode: string;
}

export interface LineStyle {
  color: string;
  width: number;
  dash?: string;
}

export interface MarkerStyle {
  symbol: string;
  size: number;
  color: string;
  opacity?: number;
  line?: { width: number };
}

export interface ChartAxis {
  title: { text: string; standoff?: number; font?: { size: number; color: string } };
  [option: string]: unknown;
}

export interface ChartShape {
  name: string;
  type: "line" | "rect";
  fillcolor?: string;
  y0?: number;
  y1?: number;
  line: { width: number; color?: string };
  [option: string]: unknown;
}

export interface ChartNote {
  name: string;
  text: string;
  y: number;
  yref?: string;
  /** In axis units, once the label is placed by shares of the plotting area. */
  value?: number;
  visible?: boolean;
  yanchor?: string;
  /** In pixels, upwards. */
  yshift?: number;
  bgcolor?: string;
  font?: { size: number; color: string };
  [option: string]: unknown;
}

export interface ChartLayout {
  shapes: ChartShape[];
  annotations: ChartNote[];
  margin: { l: number; r: number; t: number; b: number };
  font: { family: string; size: number; color: string };
  xaxis: ChartAxis;
  yaxis: ChartAxis;
  meta: ChartMeta;
  dragmode?: string | false;
  [option: string]: unknown;
}

/** A chart without points, as Python describes it. */
export interface Figure {
  data: ChartTrace[];
  layout: ChartLayout;
}

export interface Figures {
  token: Figure;
  turn: Figure;
}

/** What the stage needs beside the turns. */
export interface Meta {
  model?: string;
  figures?: Figures;
  map?: MapData;
  shipped?: string[];
  /** What plays on a page that has opened without a conversation. */
  intro?: Intro;
  /** The address that answers once the model is loaded; only on the page that waits for it. */
  ready?: string;
  /** The conversation cannot be continued here. */
  watch_only?: boolean;
  empty_note?: string | null;
  /** The day on which the conversation began; empty where it is not known. */
  date?: string;
  /** What a command needs to load the model of this page; see demo/page/made_with.py. */
  made_with?: { model: string; axis: string; local: string[]; base?: boolean };
  /** A recording that visitors cannot save. */
  unsaved?: boolean;
  /** The query of the address at which anybody finds the session, and how many of its turns are still the same. */
  link?: { query: string; turns: number };
}

/** A recorded session with which a page opens. */
export interface Intro {
  meta: Meta;
  turns: TurnData[];
}

/** The script of a guided scenario. */
export interface Script {
  title: string;
  blurb: string;
  content_warning: string;
  /** How many of its messages have been sent. */
  said: number;
  of: number;
}

/** What a session file keeps of a reply at every decoder layer. `plain` is missing where it says what `own` says. */
export type KeptLayers = Omit<LayerData, "turn" | "branch" | "plain"> & { plain?: number[][] };

/** One reply at every decoder layer: rows of `own` and `plain` are tokens, columns are layers. */
export interface LayerData {
  turn: number;
  branch: Branch;
  probe: number;
  cap: [first: number, last: number] | null;
  /** From the first capped layer to the last; null for one that is not capped. */
  floors: (number | null)[];
  tokens: string[];
  reasoning: number;
  own: number[][];
  plain: number[][];
  /** The tokens, from 1, that lie below a floor of the cap as the unsteered model reads them. */
  below: number[];
}

/** One open conversation in the tree of forks. */
export interface TreeNode {
  id: string;
  title: string;
  /** The index of the conversation that it was forked from; null for none that is open. */
  parent: number | null;
  /** Where it leaves that one. Without a branch: after the turns before `turn`. */
  point: { turn: number; branch?: Branch; token?: number; was?: string; words?: string } | null;
  star: boolean;
  note: string;
  /** By branch: the means of its replies. */
  means: Partial<ByBranch<(number | null)[]>>;
  /** The filter finds it. */
  found: boolean;
}

/** Another open conversation, to be compared with the one that is shown. */
export interface ComparedData {
  id: string;
  title: string;
  model: string;
  probe_layer: number;
  /** Its means have the same unit as those of the conversation that is shown. */
  same_axis: boolean;
  turns: TurnData[];
}

/** One side of a comparison: a branch of a conversation. */
export interface Side {
  title: string;
  model: string;
  probeLayer: number | undefined;
  branch: Branch;
  turns: Turn[];
}

/** A part of two texts: in both, or in one of them. */
export interface DifferencePart {
  kind: "same" | "left" | "right";
  text: string;
}

/** By operation: its fields. protocol.json lists the same names; test/protocol.test.js compares them. */
export interface Operations {
  reset: { meta: Meta; turns?: TurnData[] };
  conversations: {
    list: string[];
    ids: string[];
    /** How many turns each of them has. */
    turns: number[];
    current: number;
    /** The current one's number in a session file of its tree of forks; 0 for the first. */
    fork: number;
    watch_only: boolean;
    recorded: boolean;
    script: Script;
    /** The one that the next turn gets. */
    system_prompt: string;
  };
  turn_start: {
    turn: number;
    user: string;
    branches?: Branch[];
    /** Finished replies of the turn that this one replaces, which stay. */
    kept?: TurnData["branches"];
    settings?: TurnSettings;
    marks?: TurnMarks;
  };
  waiting: { turn: number; ahead: number };
  prompt: { turn: number; branch: Branch; user_mean?: number | null; start?: number };
  tokens: { turn: number; branch: Branch; at: number; tokens: Token[]; place?: Place };
  turn_end: { turn: number; branch: Branch } & ReplySummary;
  turn: { turn: number; data: TurnData };
  lost: { branches: Branch[]; text: string };
  marks: { figures: Figures };
  layers: LayerData & { conversation: string };
  layers_failed: { conversation: string; turn: number; branch: Branch };
  compared: ComparedData;
  chats: { titles: string[]; count: number };
  pane_prompts: { prompts: Partial<ByBranch<string>> };
  tree: { nodes: TreeNode[]; current: number };
  left_out: { text: string };
  load: { running: number; waiting: number; mib: number; budget: number };
  notice: { text: string; level?: string };
  download: { name: string; mime: string; text: string };
  persist: { id: string; head: Record<string, unknown>; from: number; turns: unknown[] };
  // biome-ignore lint/complexity/noBannedTypes: an operation without fields
  restored: {};
}

export type OperationName = keyof Operations;
export type Handlers = { [N in OperationName]: (fields: Operations[N], late: boolean) => void };
export type Operation = { [N in OperationName]: Operations[N] & { op: N } }[OperationName];

/** A value of the component. */
export interface StageValue {
  seq: number;
  ops: Operation[];
}

type None = Record<never, never>;

/** By request: its fields. */
export interface Requests {
  show: None;
  undo: None;
  fork: { turn: number };
  tree: { words: string; below: number | null };
  /** `words`, `below`: the filter of the tree with which it is answered. */
  note: { conversation: number; star: number; note: string; words: string; below: number | null };
  switch: { conversation: number };
  close: { conversation: number };
  /** `conversation`: the id of the one to compare with. */
  compare: { conversation: string };
  recorded: { name: string };
  shared: { name: string };
  system_prompt: { text: string };
  /** `conversation`: the id of the one that it is typed for. */
  typed_prompt: { conversation: string; text: string };
  save: { kind: string };
  restore: { conversations: string[]; current: number; draft: string | null };
  regenerate: { turn: number };
  /** `id`: of the token that takes the place of number `token`; null for `text`. `where`: branch or all. */
  fork_at: {
    turn: number;
    branch: Branch;
    token: number;
    id: number | null;
    text: string;
    where: "branch" | "all";
  };
  go_on: { turn: number; branch: Branch };
  edit: { turn: number; text: string };
  layers: { turn: number; branch: Branch };
  /** `keep`: the end of a long chat that is read. `chat`: the one to open of several; null if none is chosen. */
  open: { text: string; how: string | null; keep: "beginning" | "end" | null; chat: number | null };
}

export type RequestName = keyof Requests;

/** Sends a request. False, and nothing is sent, on a saved page, which has no server. */
export interface SendRequest {
  <N extends RequestName>(
    name: N,
    ...fields: keyof Requests[N] extends never ? [] : [fields: Requests[N]]
  ): boolean;
  available: boolean;
}

/** The points of one trace. y is null where a line is interrupted. */
export interface Series {
  x: number[];
  y: (number | null)[];
  customdata: ([label: string, description: string] | null)[];
}

/** Either the answer or the reasoning before it. */
export interface Span {
  count: number;
  fired: number;
  sum: number;
  /** How many tokens have a projection. */
  measured: number;
  /** The last projections. */
  recent: number[];
  /** The last projections as the unsteered model reads the same words. */
  recentPlain: number[];
  /** The last projections along the second direction. */
  recentSecond: number[];
}

export type SeriesRole =
  | "raw"
  | "smooth"
  | "fired"
  | "reasoning-raw"
  | "reasoning-smooth"
  | "reasoning-fired"
  | "lift"
  | "before"
  | "answer-start"
  | "plain"
  | "second";

/** What one branch says in one turn. */
export interface Reply {
  branch: Branch;
  /** The branch does not answer in this turn. */
  absent: boolean;
  /** Where the second direction stands among those that are read along; -1 for none. */
  second: number;
  /** The number of all tokens. */
  received: number;
  /** The tokens that are shown, the reasoning's and the answer's. */
  visibleTokens: VisibleToken[];
  series: Record<SeriesRole, Series>;
  answer: Span;
  reasoning: Span;
  samples: SampleData[];
  html: string | null;
  /** Null while it is being written. */
  finish: Finish | null;
  fault: string;
  finalMean: number | null;
  finalReasoningMean: number | null;
  finalFired: number | null;
  finalCount: number | null;
  limit: number | null;
  /** The mean projection of the user's message. */
  userMean: number | null;
  /** Where it begins, in axis units; null where that is not known. */
  start: number | null;
  place: Place | null;
  /** Its mean as the unsteered model reads the same words. */
  plainMean: number | null;
  /** Its means along the directions that are read along. */
  along: number[];
  seedMean: SeedMean | null;
  shift: Shift | null;
  step: Shift | null;
  /** What a recording keeps of its layers. */
  layers: KeptLayers | null;
}

export interface Turn {
  user: string;
  replies: ByBranch<Reply>;
  /** Null where they are not known. */
  settings: TurnSettings | null;
  marks: TurnMarks | null;
  seedGap: SeedMean | null;
}

/** The colours of the page by name, and the size of its text in pixels. */
export type Palette = Record<PaletteColour, string> & { size: number };
export type PaletteColour =
  | "uncapped"
  | "capped"
  | "steered"
  | "card"
  | "text"
  | "muted"
  | "grid"
  | "border"
  | "role-low"
  | "role-mid"
  | "role-high";

/** What the host of the script gives it: Gradio, or a saved page. */
export interface Host {
  element: HTMLElement;
  props: { value: string | null };
  watch: (name: string, changed: () => void) => void;
  trigger: ((event: string, data: unknown) => void) | null;
}
