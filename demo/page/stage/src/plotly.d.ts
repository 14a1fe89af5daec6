// The public part of plotly.js that the stage uses.

export interface PlotTrace {
  type?: "scatter" | "scatter3d" | "heatmap" | "box";
  // biome-ignore lint/suspicious/noExplicitAny: whatever recognises the trace
  meta?: any;
  mode?: string;
  x?: unknown[];
  y?: unknown[];
  z?: unknown[];
  customdata?: unknown[];
  opacity?: number;
  // biome-ignore lint/suspicious/noExplicitAny: every trace type has its own options
  line?: any;
  // biome-ignore lint/suspicious/noExplicitAny: every trace type has its own options
  marker?: any;
  [option: string]: unknown;
}

export type PlotLayout = Record<string, unknown>;

export interface ModeBarButton {
  name: string;
  icon: unknown;
  click: (element: PlotElement) => void;
}

export interface PlotConfig {
  displaylogo?: boolean;
  displayModeBar?: boolean;
  plotlyServerURL?: string;
  responsive?: boolean;
  doubleClick?: "autosize" | "reset";
  modeBarButtons?: (string | ModeBarButton)[][];
}

export interface PlotPoint {
  data: PlotTrace;
  pointNumber: number;
  x: number;
  y: number;
}

export interface PlotEvents {
  plotly_hover: { points: PlotPoint[] };
  plotly_unhover: { points: PlotPoint[] };
  plotly_click: { points: PlotPoint[] };
  plotly_afterplot: undefined;
  plotly_relayouting: Record<string, unknown>;
}

/** An element with a chart. `data` and `layout` are missing until it is drawn. */
export interface PlotElement extends HTMLElement {
  data?: PlotTrace[];
  layout?: PlotLayout;
  on<E extends keyof PlotEvents>(event: E, listener: (data: PlotEvents[E]) => void): void;
  removeAllListeners(event: keyof PlotEvents): void;
}

export interface Animation {
  transition: { duration: number };
  frame: { duration: number; redraw: boolean };
  mode: "immediate" | "next" | "afterall";
}

export interface PlotlyLibrary {
  version: string;
  Icons: { disk: unknown };
  newPlot(element: HTMLElement, data: PlotTrace[], layout: PlotLayout, config: PlotConfig): Promise<unknown>;
  react(element: HTMLElement, data: PlotTrace[], layout: PlotLayout, config: PlotConfig): Promise<unknown>;
  relayout(element: HTMLElement, update: PlotLayout): Promise<unknown>;
  redraw(element: HTMLElement): Promise<unknown>;
  restyle(element: HTMLElement, update: Record<string, unknown>, traces: number[]): Promise<unknown>;
  animate(
    element: HTMLElement,
    frame: { data: unknown[]; traces: number[] },
    options: Animation,
  ): Promise<unknown>;
  purge(element: HTMLElement): void;
  downloadImage(element: HTMLElement, options: { format: string; filename: string }): Promise<string>;
  Plots: { resize(element: HTMLElement): Promise<unknown> };
  Fx: {
    hover(element: HTMLElement, points: { curveNumber: number; pointNumber: number }[]): void;
    unhover(element: HTMLElement): void;
  };
}

declare global {
  /** Loads beside the page; see whenPlotly. */
  var Plotly: PlotlyLibrary;
  interface Window {
    Plotly?: PlotlyLibrary;
    /** For tests and measurements. */
    personaStage?: { counts: () => Record<string, unknown> };
    /** On the page that follows a speaker's stage: gives the stage its next value. */
    receiveStage?: (value: string) => void;
  }
}
