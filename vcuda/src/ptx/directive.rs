//! The words between a signature and its body: performance-tuning and cluster dimension directives, PTX ISA 11.4 and
//! 11.7.

use super::Result;
use super::ast::Directives;
use super::cursor::Parser;
use super::lexer::Token;

impl Parser<'_> {
    /// The directives of a kernel, or of a device function, which has few.
    pub fn directives(&mut self, is_kernel: bool) -> Result<Directives> {
        let mut directives = Directives::default();
        while let Token::Dot(name) = self.token {
            self.next()?;
            match name {
                "pragma" => self.skip_pragma()?,
                "abi_preserve" | "abi_preserve_control" => drop(self.small_int("a count")?),
                "noreturn" if !is_kernel => {}
                _ if is_kernel => self.kernel_directive(name, &mut directives)?,
                _ => return self.error_taken(format!("unknown directive .{name} of a function")),
            }
        }
        let Directives { max_ntid, req_ntid, cluster, max_cluster_ctas, counts_clusters, .. } = directives;
        if max_ntid.is_some() && req_ntid.is_some() {
            return self.error_taken(".maxntid and .reqntid of one kernel");
        }
        if cluster.is_some() && max_cluster_ctas.is_some() {
            return self.error_taken(".reqnctapercluster and .maxclusterrank of one kernel");
        }
        if counts_clusters && (req_ntid.is_none() || cluster.is_none()) {
            return self.error_taken(".blocksareclusters without .reqntid and .reqnctapercluster");
        }
        Ok(directives)
    }

    fn kernel_directive(&mut self, name: &str, directives: &mut Directives) -> Result<()> {
        let since = match name {
            "reqnctapercluster" | "explicitcluster" | "maxclusterrank" => Some((7, 8)),
            "blocksareclusters" => Some((9, 0)),
            _ => None,
        };
        if let Some(version) = since {
            self.require(name, version)?;
        }
        match name {
            "maxntid" => directives.max_ntid = Some(self.threads()?),
            "reqntid" => directives.req_ntid = Some(self.threads()?),
            "minnctapersm" => directives.min_ctas_per_sm = Some(self.small_int("a count")?),
            "maxnreg" => match self.small_int("a count")? {
                0 => return self.error_taken(".maxnreg 0: at least 1 is expected"),
                count => directives.max_registers = Some(count),
            },
            "reqnctapercluster" => directives.cluster = Some(self.extent()?),
            "maxclusterrank" => directives.max_cluster_ctas = Some(self.small_int("a count")?),
            "explicitcluster" => directives.needs_cluster = true,
            "blocksareclusters" => directives.counts_clusters = true,
            _ => return self.error_taken(format!("unknown directive .{name} of a kernel")),
        }
        Ok(())
    }

    /// Clusters came with sm_90, and their directives with this version or a later one.
    fn require(&self, name: &str, version: (u32, u32)) -> Result<()> {
        let target = &self.module.target;
        let digits = target.trim_start_matches("sm_").trim_end_matches(|c: char| c.is_ascii_lowercase());
        if self.module.version < version {
            let (major, minor) = version;
            return self.error_taken(format!(".{name} needs .version {major}.{minor}"));
        }
        if digits.parse::<u32>().is_ok_and(|number| number < 90) {
            return self.error_taken(format!(".{name} needs .target sm_90; it is {target}"));
        }
        Ok(())
    }

    /// Threads along each axis, of which there is one at least.
    fn threads(&mut self) -> Result<[u32; 3]> {
        match self.extent()? {
            extent if extent.contains(&0) => self.error_taken("a size of 0 threads"),
            extent => Ok(extent),
        }
    }

    /// One to three sizes; the missing ones are 1.
    fn extent(&mut self) -> Result<[u32; 3]> {
        let mut extent = [self.small_int("a size")?, 1, 1];
        for size in &mut extent[1..] {
            if !self.accept(',')? {
                break;
            }
            *size = self.small_int("a size")?;
        }
        Ok(extent)
    }

    /// `.loc file line column [, function_name label[+n]] [, inlined_at file line column]`: file and line;
    /// `None` for line 0, which stands for no line.
    pub fn loc(&mut self) -> Result<Option<(u32, u32)>> {
        let place = self.place()?;
        while self.accept(',')? {
            match self.word("function_name or inlined_at")? {
                "function_name" => {
                    self.word("a label")?;
                    if self.accept('+')? {
                        self.small_int("an offset")?;
                    }
                }
                "inlined_at" => drop(self.place()?),
                other => {
                    return self
                        .error_taken(format!("expected function_name or inlined_at, found `{other}`"));
                }
            }
        }
        Ok(Some(place).filter(|&(_, line)| line != 0))
    }

    fn place(&mut self) -> Result<(u32, u32)> {
        let place = (self.small_int("a file index")?, self.small_int("a line")?);
        self.small_int("a column")?;
        Ok(place)
    }

    /// `.pragma "…", "…";`
    pub fn skip_pragma(&mut self) -> Result<()> {
        while !self.accept(';')? {
            match self.next()? {
                Token::Text(_) | Token::Punct(',') => {}
                other => return self.error_taken(format!("expected a pragma in quotes, found {other}")),
            }
        }
        Ok(())
    }

    /// `(.managed)`, `(.unified(n, n))`
    pub fn skip_attribute(&mut self) -> Result<()> {
        self.expect('(')?;
        let mut depth = 1;
        while depth > 0 {
            match self.next()? {
                Token::Punct('(') => depth += 1,
                Token::Punct(')') => depth -= 1,
                Token::Dot(_) | Token::Number(_) | Token::Punct(',') => {}
                other => return self.error_taken(format!("unexpected {other} in an attribute")),
            }
        }
        Ok(())
    }
}
